"""Typeset sections of CC BY 4.0 textbooks, with openly licensed figures, as PDFs with a text layer.

python data/samples/tools/pages.py ../shared/data [CHROMIUM]
"""

from __future__ import annotations

import html
import json
import lzma
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from photos import BOOKS, SAMPLES, licence_of

PARAGRAPHS = 22  # about six pages with their figures
_EMPTY_REFERENCE = re.compile(r" ?\(\s*\)")  # a figure's number, lost in the text's extraction


@dataclass(frozen=True)
class Section:
    """One section of a book: what the PDF is named by, and where its text is."""

    name: str
    book: str
    title: str


SECTIONS = [
    Section("section-a", "astronomy", "The Geology of Mars"),
    Section("section-b", "astronomy", "The Structure and Composition of the Sun"),
    Section("section-c", "world-history", "The Second Industrial Revolution"),
    Section("section-d", "world-history", "Ancient Mesopotamia"),
]

STYLE = """
@page { size: A4; margin: 20mm 18mm 18mm; }
body { font: 10.2pt/1.42 "DejaVu Serif", serif; color: #1a1a1a; }
h1 { font: 700 21pt/1.2 "DejaVu Sans", sans-serif; color: #123a5a; margin: 0 0 2mm; }
h2 { font: 700 12.5pt/1.3 "DejaVu Sans", sans-serif; color: #123a5a; margin: 6mm 0 2mm;
     break-after: avoid; }
.book { font: 9pt "DejaVu Sans", sans-serif; color: #555; margin: 0 0 6mm;
        border-bottom: 1.2pt solid #123a5a; padding-bottom: 3mm; }
p { margin: 0 0 2.4mm; text-align: justify; hyphens: auto; }
figure { margin: 4mm auto; width: 105mm; break-inside: avoid; }
figure img { width: 100%; display: block; }
figcaption { font: 8.2pt/1.35 "DejaVu Sans", sans-serif; color: #333; margin-top: 1.5mm; }
footer { font: 7.6pt/1.4 "DejaVu Sans", sans-serif; color: #555; margin-top: 8mm;
         border-top: 0.6pt solid #999; padding-top: 2mm; }
"""


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, plain or compressed with xz."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode()
    return [json.loads(line) for line in text.splitlines()]


def document(section: Section, data: Path) -> str:
    """The section as one HTML page: headings, their paragraphs, then their figures."""

    def belongs(row: dict[str, Any]) -> bool:
        return row["book"] == section.book and row["module_title"] == section.title

    figures = [
        row
        for row in rows(data / "openstax_figures/figures.jsonl")
        if belongs(row) and licence_of(row["credit"])
    ]
    paragraphs = [row for row in rows(data / "openstax_text/paragraphs.jsonl.xz") if belongs(row)]
    body: list[str] = []
    for heading, group in groupby(paragraphs[:PARAGRAPHS], key=lambda row: row["section"]):
        texts = [f"<p>{html.escape(_EMPTY_REFERENCE.sub('', row['text']))}</p>" for row in group]
        drawn = [_figure(row, data) for row in figures if row["section"] == heading]
        if heading:
            body.append(f"<h2>{html.escape(heading)}</h2>")
        body += _spread(texts, drawn)
    book, title = html.escape(BOOKS[section.book]), html.escape(section.title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><p class=book>{book}</p>"
        f"{''.join(body)}<footer>Text: {book}, OpenStax, Rice University, CC BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/). Abridged and typeset anew; figures "
        "without a stated open licence are left out.</footer></html>"
    )


def _spread(texts: list[str], figures: list[str]) -> list[str]:
    """The figures at even distances between the paragraphs."""
    out: list[str] = []
    for i, text in enumerate(texts, 1):
        out.append(text)
        before, after = ((j * (len(figures) + 1) // len(texts)) for j in (i - 1, i))
        out += figures[before:after]
    return out


def _figure(row: dict[str, Any], data: Path) -> str:
    image = (data / "openstax_figures" / row["image"]).resolve().as_uri()
    caption = html.escape(" ".join((row["caption"], row["credit"])))
    return f'<figure><img src="{image}"><figcaption>{caption}</figcaption></figure>'


def main() -> None:
    data = Path(sys.argv[1])
    chromium = sys.argv[2] if len(sys.argv) > 2 else "chromium"
    folder = SAMPLES / "pages"
    folder.mkdir(exist_ok=True)
    for section in SECTIONS:
        with tempfile.TemporaryDirectory() as scratch:
            page = Path(scratch) / "page.html"
            page.write_text(document(section, data), encoding="utf-8")
            subprocess.run(
                [
                    *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                    *("--disable-background-networking", "--disable-component-update"),
                    *("--disable-sync", f"--user-data-dir={scratch}/profile"),
                    *("--no-pdf-header-footer", f"--print-to-pdf={folder / section.name}.pdf"),
                    page.as_uri(),
                ],
                check=True,
                capture_output=True,
            )


if __name__ == "__main__":
    main()

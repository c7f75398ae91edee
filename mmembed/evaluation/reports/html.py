"""A report as one HTML file that stands alone: drawings and pictures are inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from mmembed.evaluation.reports.blocks import Block, Chart, Gallery, Paragraph, Report, Table
from mmembed.evaluation.reports.pictures import thumbnail

__all__ = ["write_html"]

_STYLE = """
body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}
th,td{border:1px solid #ddd;padding:.25em .6em;text-align:left}.n{text-align:right}
.c{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:1em}
figure{margin:0;overflow-x:auto}figcaption{color:#666}figure svg{max-width:100%;height:auto}
.f{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:.6em;
border-top:1px solid #ddd;padding:.6em 0}.f p{margin:0;font-size:13px;overflow-wrap:anywhere}
.f b{display:block;font-size:12px;color:#666}.f img{max-width:160px;border-radius:3px}
nav a{margin-right:1em}
"""
_LONGEST = 220


def write_html(report: Report, file: Path) -> Path:
    """Write the report, whole or not at all; its path."""
    links = "".join(
        f'<a href="#s{i}">{escape(one.title)}</a>' for i, one in enumerate(report.sections)
    )
    body = "".join(
        f'<section id="s{i}"><h2>{escape(one.title)}</h2>' + _blocks(one.blocks) + "</section>"
        for i, one in enumerate(report.sections)
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(report.title)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    return part.replace(file)


def _blocks(blocks: Sequence[Block]) -> str:
    """All blocks in their order; charts that follow each other stand side by side."""
    parts = []
    for kind, group in groupby(blocks, key=type):
        shown = "".join(_RENDER[kind](block) for block in group)
        parts.append(f'<div class="c">{shown}</div>' if kind is Chart else shown)
    return "".join(parts)


def _paragraph(block: Paragraph) -> str:
    return f"<p>{escape(block.text)}</p>"


def _table(block: Table) -> str:
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.header)
    marks = [' class="n"' if all(map(_is_number, cells)) else "" for cells in columns]

    def line(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(cells, marks, strict=True)
        shown = "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in pairs)
        return f"<tr>{shown}</tr>"

    head, rows = line("th", block.header), "".join(line("td", row) for row in block.rows)
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _is_number(cell: str) -> bool:
    return cell == "–" or cell[:1].isdigit() or cell[:2].lstrip("-")[:1].isdigit()


def _chart(block: Chart) -> str:
    return f"<figure>{block.svg}<figcaption>{escape(block.about)}</figcaption></figure>"


def _gallery(block: Gallery) -> str:
    rows = ""
    for one in block.failures:
        cells = [_item("query", one.query), _item(f"wanted, rank {one.rank}", one.wanted)]
        cells += [_item(f"found {i}", found) for i, found in enumerate(one.found, 1)]
        rows += f'<div class="f">{"".join(cells)}</div>'
    return f"<details><summary>{escape(block.title)}</summary>{rows}</details>"


def _item(label: str, item: Mapping[str, str]) -> str:
    picture = thumbnail(item)
    shown = f'<img src="{picture}" alt="">' if picture else ""
    words = item.get("text", "")
    words = words if len(words) < _LONGEST else words[:_LONGEST] + "…"
    if not words and not picture:  # the file is gone: its name is left
        words = Path(next(iter(item.values()), "")).name
    return f"<div><b>{escape(label)}</b>{shown}<p>{escape(words)}</p></div>"


_RENDER: Mapping[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Table: _table,
    Chart: _chart,
    Gallery: _gallery,
}

"""A report as Markdown, with its drawings as SVG files beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmembed.evaluation.reports.blocks import Chart, Gallery, Paragraph, Report, Table

__all__ = ["write_markdown"]

_LONGEST = 160


def write_markdown(report: Report, file: Path) -> Path:
    """Write ``FILE.md`` and the folder ``FILE.files`` of drawings; the path of the text."""
    drawings = file.with_suffix(".files")
    drawings.mkdir(parents=True, exist_ok=True)
    lines = [f"# {report.title}", ""]
    for section in report.sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Chart):
                (drawings / f"{block.name}.svg").write_text(block.svg, encoding="utf-8")
            lines += [_RENDER[type(block)](block, drawings.name), ""]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def _paragraph(block: Paragraph, folder: str) -> str:
    return block.text


def _table(block: Table, folder: str) -> str:
    rows = [block.header, ["---"] * len(block.header), *block.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _chart(block: Chart, folder: str) -> str:
    return f"![{block.about}]({folder}/{block.name}.svg)"


def _gallery(block: Gallery, folder: str) -> str:
    table = Table(
        ["query", "wanted", "rank", "found first"],
        [[_told(f.query), _told(f.wanted), str(f.rank), _told(f.found[0])] for f in block.failures],
    )
    return f"### {block.title}\n\n{_table(table, folder)}"


def _told(item: Mapping[str, str]) -> str:
    named = [Path(value).name if key != "text" else value for key, value in item.items()]
    text = ", ".join(named)
    return text if len(text) < _LONGEST else text[:_LONGEST] + "…"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


_RENDER: Mapping[type, Callable[[Any, str], str]] = {
    Paragraph: _paragraph,
    Table: _table,
    Chart: _chart,
    Gallery: _gallery,
}

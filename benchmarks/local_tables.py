"""The table of ``docs/results.md``, written from ``results/local_benchmarks.json``.

python benchmarks/local_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "rendered"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
_RESULT = Path(__file__).resolve().parent / "results" / "local_benchmarks.json"
_START, _END = "<!-- local benchmarks: start -->\n", "<!-- local benchmarks: end -->\n"


def rendered(page: str, result: Mapping[str, Any]) -> str:
    """The page with the table of this result between its marks."""
    before, found, rest = page.partition(_START)
    _, closed, after = rest.partition(_END)
    if not found or not closed:
        raise SystemExit(f"{PAGE}: the marks {_START.strip()} and {_END.strip()} are missing")
    return before + _START + "".join(f"{line}\n" for line in _lines(result)) + _END + after


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield "| benchmark | metric | mean over subsets | half the dimensions | one bit a dimension |"
    yield "|---|---|---|---|---|"
    for name, one in sorted(result["benchmarks"].items()):
        cuts = {int(width): value for width, value in one["curves"]["dimensions"].items()}
        half, bit = cuts[max(cuts) // 2], one["curves"]["quantisation"]["binary"]
        yield f"| `{name}` | {one['main']} | {one['score']:.4f} | {half:.4f} | {bit:.4f} |"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rendered(text, json.loads(_RESULT.read_text("utf-8"))), encoding="utf-8")

"""The table of benchmarks/results/code_quality.json, for docs/code-search.md.

python benchmarks/code_quality_table.py    # put it between its marks in the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import RESULTS
from marked import between

PAGE = Path(__file__).resolve().parents[1] / "docs" / "code-search.md"
FILE = RESULTS / "code_quality.json"
MARKS = ("<!-- code_quality: begin -->\n", "<!-- code_quality: end -->\n")


def table(result: Mapping[str, Any]) -> str:
    """One line a system: nDCG@10 in each folder and over all, and how far ours are above it."""
    folders = result["folders"]
    ours = list(result["above"])
    lines = [
        f"| {result['queries']} queries | {' | '.join(folders)} | all (95% interval) | "
        + " | ".join(f"{name} is above it by" for name in ours)
        + " |",
        "|---|" + "---|" * (len(folders) + 1 + len(ours)),
    ]
    for system, all_ in result["ndcg10"].items():
        cells = [f"{each['ndcg10'][system]:.3f}" for each in folders.values()]
        cells.append(f"{all_['mean']:.3f} {_interval(all_)}")
        for name in ours:
            above = result["above"][name].get(system)
            cells.append("" if above is None else f"{above['mean']:+.3f} {_interval(above)}")
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _interval(told: Mapping[str, Any]) -> str:
    low, high = told["interval"]
    return f"({low:.3f} to {high:.3f})"


def written(page: str) -> str:
    """The page with the table of the result that is there."""
    return between(page, MARKS, table(json.loads(FILE.read_text(encoding="utf-8"))), PAGE)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

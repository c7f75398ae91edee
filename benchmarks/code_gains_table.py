"""The table of benchmarks/results/code_recipe_gains.json, for docs/code-training.md.

python benchmarks/code_gains_table.py    # put it between its marks in the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gains_table import summary, verdict
from machine import RESULTS
from marked import between

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "code-training.md"
RECIPES = ROOT / "configs" / "recipes" / "code"
FILE = RESULTS / "code_recipe_gains.json"
MARKS = ("<!-- code_recipe_gains: begin -->\n", "<!-- code_recipe_gains: end -->\n")


def runs_of() -> list[dict[str, Any]]:
    """The runs that were measured, by recipe."""
    return list(json.loads(FILE.read_text(encoding="utf-8"))["runs"]) if FILE.exists() else []


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """One line a recipe: every set before and after, the mean gain, and intervals of gains."""
    sets = [name.partition("/")[0] for name in runs[0]["sets"]]
    lines = [
        f"| recipe | start | seeds | {' | '.join(sets)} | mean gain (95% interval) "
        "| beats its start |",
        "|---|" + "---|" * (len(sets) + 4),
    ]
    for run in runs:
        cells = [
            "{before:.3f} to {after:.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})".format(**one)
            for one in run["sets"].values()
        ]
        low, high = run["interval"]
        gain = f"{run['gain']:+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(
            f"| {run['recipe']} | {run['start']} | {len(run['seeds'])} | {' | '.join(cells)} "
            f"| {gain} | {verdict(low, high)} |"
        )
    return "\n".join(lines) + "\n"


def matched(runs: Sequence[Mapping[str, Any]]) -> str:
    """What matching heads add to the model that they rerank."""
    lines = []
    for run in (one for one in runs if "matching" in one):
        ((name, head),) = run["matching"]["sets"].items()
        low, high = head["interval"]
        lines.append(
            f"\nThe matching head of {run['recipe']}, from {run['start']}, reranks {name}: "
            f"{head['before']:.3f} to {head['after']:.3f} ({low:+.3f} to {high:+.3f}).\n"
        )
    return "".join(lines)


def missing(runs: Sequence[Mapping[str, Any]]) -> str:
    """Which recipes were not run yet, if any."""
    found = {run["recipe"] for run in runs}
    names = [file.stem for file in sorted(RECIPES.glob("*.yaml")) if file.stem not in found]
    return f"\nNot run yet: {', '.join(names)}.\n" if names else ""


def written(page: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of these runs."""
    return between(
        page, MARKS, f"{summary(runs)}\n{table(runs)}{matched(runs)}{missing(runs)}", PAGE
    )


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), runs_of()), encoding="utf-8")

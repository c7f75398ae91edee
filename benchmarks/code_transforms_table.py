"""The table of benchmarks/results/code_transforms.json, for docs/code-transforms.md.

python benchmarks/code_transforms_table.py    # put it between its marks in the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import RESULTS
from marked import between

from codeembed.transform.registry import DEVIANTS, PRESERVING

PAGE = Path(__file__).resolve().parents[1] / "docs" / "code-transforms.md"
FILE = RESULTS / "code_transforms.json"
MARKS = ("<!-- code_transforms: begin -->\n", "<!-- code_transforms: end -->\n")
COUNTS = ("sites", "edits", "reparsed", "inverted", "executed", "disagreements")


def languages_of() -> list[dict[str, Any]]:
    """What was measured, by language."""
    return list(json.loads(FILE.read_text(encoding="utf-8"))["languages"])


def summed(operations: Mapping[str, Mapping[str, int]], names: Sequence[str], key: str) -> int:
    """A count over some operations."""
    return sum(operations[name][key] for name in names if name in operations)


def functions_run(one: Mapping[str, Any]) -> int:
    """Functions that were run; those tried, where a row tells no more."""
    if "run" in one:
        return int(one["run"]["functions"].get("executed", 0))
    return int(one.get("given_to_a_runner", 0))


def table(languages: Sequence[Mapping[str, Any]]) -> str:
    """One line a language: counts of the preserving operations, and of the deviants."""
    lines = [
        "| language | functions | sites | edits | parse again | undone exactly | functions run "
        "| executed | disagree | deviants executed | differ |",
        "|---" * 11 + "|",
    ]
    for one in languages:
        counts = [
            summed(one["operations"], [each.name for each in PRESERVING], key) for key in COUNTS
        ]
        deviants = [
            summed(one["operations"], [each.name for each in DEVIANTS], key) for key in COUNTS[4:]
        ]
        numbers = [one["functions"], *counts[:4], functions_run(one), *counts[4:], *deviants]
        cells = " | ".join(f"{number:,}" for number in numbers)
        lines.append(f"| {one['language']} | {cells} |")
    return "\n".join(lines) + "\n"


def written(page: str, languages: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of these counts."""
    return between(page, MARKS, table(languages), PAGE)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), languages_of()), encoding="utf-8")

"""The tables of benchmarks/results/code_gains.json, for docs/code-search.md.

python benchmarks/code_sets_table.py    # put them between their marks in the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import RESULTS
from marked import between

PAGE = Path(__file__).resolve().parents[1] / "docs" / "code-search.md"
FILE = RESULTS / "code_gains.json"
MARKS = ("<!-- code_sets: begin -->\n", "<!-- code_sets: end -->\n")
BM25, PLAIN, ADAPTED = "bm25", "minilm", "minilm+code"
# The adapter learned from these problems.
SEEN = frozenset({"mbxp"})


def sets_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a set: nDCG@10 by each system, what the adapter adds, and MAP@R."""
    lines = [
        "| set | queries, documents | BM25 | plain MiniLM | with the adapter | added"
        " | MAP@R, plain and with it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sets.items():
        plain, adapted = found[PLAIN], found[ADAPTED]
        mark = " (learned from)" if name in SEEN else ""
        lines.append(
            f"| {name}{mark} | {plain['queries']:,}, {plain['documents']:,} "
            f"| {found[BM25]['ndcg10']:.3f} | {plain['ndcg10']:.3f} | {adapted['ndcg10']:.3f} "
            f"| {adapted['ndcg10'] - plain['ndcg10']:+.3f} "
            f"| {plain['map_r']:.3f}, {adapted['map_r']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def robustness_table(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Two lines a model: the curves of finding again and of telling from a bug, and of clones."""
    counts = list(curves[PLAIN]["renames"])
    lines = [
        "| | " + " | ".join(f"{count} renamed" for count in counts) + " | clones before bugs |",
        "|---|" + "---|" * (len(counts) + 1),
    ]
    for name, model in ((PLAIN, "plain MiniLM"), (ADAPTED, "with the adapter")):
        found = curves[name]
        for key, told in (("renames", "found again"), ("before_bugs", "nearer than a bug")):
            curve = " | ".join(f"{found[key][count]:.3f}" for count in counts)
            last = f"{found['deviant_accuracy']:.3f}" if key == "before_bugs" else ""
            lines.append(f"| {model}, {told} | {curve} | {last} |")
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with the tables of the result that is there."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    sets = {name: each for name, each in found["sets"].items() if ADAPTED in each}
    curves = sets.pop("robustness", None)
    text = sets_table(sets)
    if found["not_measured"]:
        text += f"\nNot measured yet: {', '.join(found['not_measured'])}.\n"
    if curves is not None:
        text += f"\n{robustness_table(curves)}"
    return between(page, MARKS, text, PAGE)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

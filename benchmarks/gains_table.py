"""The table of benchmarks/results/recipe_gains.json, for docs/benchmarks.md.

python benchmarks/gains_table.py           # print it
python benchmarks/gains_table.py --write   # put it between its marks in docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import RESULTS
from marked import between

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- recipe_gains: begin -->\n", "<!-- recipe_gains: end -->\n"
EARLIER = ("<!-- earlier gains: begin -->\n", "<!-- earlier gains: end -->\n")

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "fitted afterwards": ("bert-flow", "bert-whitening"),
    "unsupervised": (
        *("declutr", "diffcse", "ease", "esimcse", "is-bert", "promcse", "promptbert", "scd"),
        "simcse-unsupervised",
    ),
    "graded pairs": ("angle", "cosent", "sbert-lp"),
    "supervised pairs": ("instructor", "labse", "mdpr", "simcse-supervised", "uae"),
    "distillation": ("kd-embedding", "kd-kl", "kd-margin-mse", "nllb-e5"),
    "Matryoshka": ("mrl",),
    "sparse": ("lex", "splade"),
    "dense, sparse, multi-vector": ("bge-m3",),
    "guided": ("cde", "gistembed"),
    "stages, encoders": (
        *("arctic", "bge", "e5", "granite", "gte", "jina-v2", "jina-v3", "mcontriever", "mgte"),
        *("multilingual-e5", "nomic", "nomic-moe"),
    ),
    "T5": ("gtr", "jina-v1", "m-st5", "st5", "st5-decoder-first"),
}
DECODERS = "decoders"  # the rest


def family_of(recipe: str) -> str:
    """The kind of recipe, by what teaches it."""
    return next((family for family, some in FAMILIES.items() if recipe in some), DECODERS)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """One line a run: every set before and after, the mean gain and its interval."""
    lines = [
        "| family | recipe | start | held-out sets (rows): before to after "
        "| mean gain (95% interval) | beats its start |",
        "|---|---|---|---|---|---|",
    ]
    order = [*FAMILIES, DECODERS]
    for run in sorted(runs, key=lambda one: order.index(family_of(one["recipe"]))):
        sets = "; ".join(
            f"{_set(name)} ({one['rows']}): {one['before']:.3f} to {one['after']:.3f}"
            for name, one in run["sets"].items()
        )
        low, high = run["interval"]
        lines.append(
            f"| {family_of(run['recipe'])} | {run['recipe']} | {run['start']} | {sets} | "
            f"{run['gain']:+.3f} ({low:+.3f} to {high:+.3f}) | {verdict(low, high)} |"
        )
    return "\n".join(lines) + "\n"


def summary(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many recipes beat a start of theirs, and which do not."""
    recipes = sorted({run["recipe"] for run in runs})
    won = {run["recipe"] for run in runs if run["interval"][0] > 0}
    lost = [name for name in recipes if name not in won]
    text = f"{len(won)} of {len(recipes)} recipes beat a start of theirs, with an interval above 0."
    return text + (f" These do not: {', '.join(lost)}.\n" if lost else "\n")


def _set(name: str) -> str:
    label = name.partition("/")[0]
    return label.removesuffix(" by cosine")


def verdict(low: float, high: float) -> str:
    """Whether a gain's interval lies above 0."""
    if low > 0:
        return "yes"
    return "no: it loses" if high < 0 else "undecided"


def earlier(runs: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, one column a set."""
    sets = {"terms": "terms/ndcg@10", "sections": "sections/ndcg@10", "related": "related/spearman"}
    lines = [f"| recipe | start | {' | '.join(sets)} |", "|---|---|---|---|---|"]
    for run in sorted(runs, key=lambda one: (one["start"] != "MiniLM", one["recipe"])):
        pairs = [(run["before"][key], run["after"][key]) for key in sets.values()]
        cells = [f"{old:.3f} to {new:.3f} ({new - old:+.3f})" for old, new in pairs]
        lines.append(f"| {run['recipe']} | {run['start']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written(page: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of these runs."""
    return between(page, (BEGIN, END), f"{summary(runs)}\n{table(runs)}", DOCS)


def runs_of(name: str) -> list[dict[str, Any]]:
    """The runs of a file in benchmarks/results."""
    return list(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["runs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    runs = runs_of("recipe_gains")
    if not args.write:
        print(summary(runs))
        print(table(runs))
        return
    page = written(DOCS.read_text(encoding="utf-8"), runs)
    page = between(page, EARLIER, earlier(runs_of("recipe_gains_earlier")), DOCS)
    DOCS.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The page of benchmarks/results/recipes_aligned.json and recipes.json.

python benchmarks/media_tables.py    # writes benchmarks/results/recipes.md
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from machine import RESULTS

PAGE = RESULTS / "recipes.md"
_WORDS = ("wins", "loses", "undecided", "too few seeds")
_ALIGNED = """# Real runs of the multimodal recipes

Written by `python benchmarks/media_tables.py`. nDCG@10 is of test rows whose media no run trained
on; where a recipe has several test sets it is their mean. **Plain** is InfoNCE on the recipe's own
pairs in one stage, from the same start and seed, at the same budget. The margin is the mean over
seeds of recipe less plain, and in brackets its standard error. A recipe wins or loses where every
seed agrees and the margin is more than two standard errors; all else is undecided. One small start,
short runs: this says which way an idea pulls here, not how good the published system is.

## From a start that knows words and pictures

Of `recipes_aligned.json`, which `python benchmarks/media_gains.py` measures; that file says what
all runs share, and what stands in for what. Published recipes go on from weights that know words
and pictures, and so do these: the start is the small model after plain InfoNCE on names and photos.
Each run has {steps} steps of {batch} rows in all its stages together; the first seed's development
rows choose its learning rate of {rates}. Rerankers order the {shortlist} documents that an embedder
finds for each of {asked} queries. The recipes that are not here have not been run in this way yet.
"""
_HEAD = """## From an untrained connector

Of `recipes.json`, measured before: at one learning rate, from a start that knows no pictures, which
masks of false negatives, judges and hard negatives take for granted. The recipes of rerankers
ordered all documents then, by heads of a few steps; jina_v4 drew its pages by their number, and
mined none; the last stage of qwen3_vl_embedding was taught by the model itself, so nothing could be
learned there, and its merge was not measured; temperatures started at the papers' values for
training from nothing. Where a recipe ends in a reranker, the test set is {pairs} queries and their
targets, every one with every one.

Each run has {steps} steps of {batch} rows in all its stages together, at a learning rate of {lr}.
Teachers, miners and judges are the model that plain InfoNCE on names and photos gives;
rerankers, and what learns from texts alone, start from it. A reranker reads query and document as
one sequence, and answers by the words yes and no. A clip is two pictures, a page its picture and
its text layer. CoCa needs a decoder that writes captions, so it starts from small towers of random
weights and reads the images themselves (`python benchmarks/coca_gains.py`: same data, same budget);
its start and its first stage rank by the likelihood of the caption.
"""


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a recipe: means over the seeds that both it and its plain run have."""
    found = []
    for name, base in sorted(result["plain"].items()):
        runs, plain = result["runs"].get(name, {}), result["runs"].get(base, {})
        seeds = sorted(set(runs) & set(plain))
        if not seeds:
            continue
        margins = [runs[seed]["end"] - plain[seed]["end"] for seed in seeds]
        error = statistics.stdev(margins) / len(seeds) ** 0.5 if len(seeds) > 1 else None
        found.append(
            {
                "name": name,
                "sets": sorted(runs[seeds[0]]["after"]),
                "seeds": len(seeds),
                "start": statistics.mean(runs[seed]["start"] for seed in seeds),
                "plain": statistics.mean(plain[seed]["end"] for seed in seeds),
                "end": statistics.mean(runs[seed]["end"] for seed in seeds),
                "margin": statistics.mean(margins),
                "error": error,
                "verdict": verdict(margins),
            }
        )
    return found


def verdict(margins: Sequence[float]) -> str:
    """Whether the recipe beats plain InfoNCE, loses to it, or neither can be said."""
    if len(margins) < 3:
        return "too few seeds"
    mean = statistics.mean(margins)
    sure = abs(mean) > 2 * statistics.stdev(margins) / len(margins) ** 0.5
    if sure and all(one > 0 for one in margins):
        return "wins"
    return "loses" if sure and all(one < 0 for one in margins) else "undecided"


def page(aligned: Mapping[str, Any], empty: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        aligned: runs from a start that knows words and pictures.
        empty: those from an untrained connector.
    """
    budget = aligned["budget"]
    rates = " or ".join(f"{rate:g}" for rate in budget["rates"])
    told = {key: aligned[key] for key in ("asked", "shortlist")}
    lines = [_ALIGNED.format(**{**budget, "rates": rates}, **told), *_tables(aligned)]
    lines += ["", _HEAD.format(**empty["budget"], pairs=empty["pairs"]), *_tables(empty)]
    return "\n".join(lines) + "\n"


def _tables(result: Mapping[str, Any]) -> list[str]:
    rows = rows_of(result)
    named = {word: [r["name"] for r in rows if r["verdict"] == word] for word in _WORDS}
    run = {row["name"] for row in rows}
    named["not run"] = sorted(set(result["plain"]) - run)
    lines = [f"- {word}: {', '.join(names)}" for word, names in named.items() if names]
    lines += [
        "",
        "| recipe | test sets | seeds | start | plain | recipe | over start | over plain | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error = "" if row["error"] is None else f" ({row['error']:.3f})"
        lines.append(
            f"| {row['name']} | {', '.join(row['sets'])} | {row['seeds']} | {row['start']:.3f} | "
            f"{row['plain']:.3f} | {row['end']:.3f} | {row['end'] - row['start']:+.3f} | "
            f"{row['margin']:+.3f}{error} | {row['verdict']} |"
        )
    lines += [
        "",
        "nDCG@10 by steps of all stages so far, and the loss every twenty steps; the first seed.",
        "",
        "| run | nDCG@10 | loss |",
        "|---|---|---|",
    ]
    for name, runs in sorted(result["runs"].items()):
        if not runs:
            continue
        first = runs[min(runs)]
        scores = ", ".join(f"{step}: {value:.3f}" for step, value in first["curve"])
        losses = ", ".join(f"{step}: {value:g}" for step, value in first["losses"])
        lines.append(f"| {name} | {scores} | {losses} |")
    return lines


def read(name: str) -> dict[str, Any]:
    """A result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    PAGE.write_text(page(read("recipes_aligned"), read("recipes")), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Choose the weights of codeembed's ranking, on folders that ``code_quality.py`` does not measure.

    python benchmarks/tune_code_ranking.py FOLDER ... [--limit 120]

Asks each folder for its functions by their docstrings, before the model's vectors are there and
with them. Weights are changed one after another, each to the best of a few values by the mean
nDCG@10 of both answers over the folders, until a round changes nothing.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from code_quality import K, Span, gains_of, span, without_docstrings

from codeembed import CodeIndex, ranking
from codeembed import search as searching
from codeembed.search import CodeFilter, Question, Source, find

# Where each constant is, and what is tried.
TRIED: dict[str, tuple[Any, str, Sequence[float]]] = {
    "_RRF": (ranking, "_RRF", (5, 10, 20, 40, 60)),
    "static, no vector yet": (searching._UNREAD, "static", (0.2, 0.3, 0.45, 0.7, 1.0)),
    "lexical": (searching._READ, "lexical", (0.2, 0.35, 0.5, 0.7, 1.0)),
    "static": (searching._READ, "static", (0.0, 0.05, 0.1, 0.2)),
    "_MENTION": (ranking, "_MENTION", (0.5, 0.75, 1.0, 1.35)),
    "_STEM": (ranking, "_STEM", (0.0, 0.1, 0.2)),
    "_PATH": (ranking, "_PATH", (0.0, 0.05, 0.1)),
    "_COHERENCE": (ranking, "_COHERENCE", (0.0, 0.05, 0.1, 0.2)),
}


@dataclass(frozen=True)
class Asked:
    """One folder: where its chunks are, its questions with their vectors, and their answers."""

    source: Source
    questions: list[Question]
    answers: list[Span]

    def values(self, *, first: bool) -> list[float]:
        """nDCG@10 of every question, with the model's vectors or before they are there."""
        asked = (Question(q.text, None, q.mode) if first else q for q in self.questions)
        found = [
            [span(hit) for hit in find(each, K, CodeFilter(), [self.source])] for each in asked
        ]
        return gains_of(found, self.answers)


def asked_of(folder: Path, place: Path, limit: int) -> Asked:
    root = place / "root"
    queries, answers = without_docstrings(folder, root, limit)
    index = CodeIndex.open(root, store=place / "index")
    index.update(vectors=False)
    index.fill()
    source = index.source()
    return Asked(source, [index.question(query, "hybrid") for query in queries], answers)


def put(name: str, value: float) -> None:
    place, key, _ = TRIED[name]
    if isinstance(place, dict):
        place[key] = value
    else:
        setattr(place, key, value)


def now(name: str) -> float:
    place, key, _ = TRIED[name]
    return float(place.get(key, 0.0) if isinstance(place, dict) else getattr(place, key))


def score(folders: Sequence[Asked]) -> tuple[float, float]:
    """Means over folders, so that none counts more for its size: first answer, complete."""
    return tuple(  # type: ignore[return-value]
        float(np.mean([np.mean(each.values(first=first)) for each in folders]))
        for first in (True, False)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, default=120, help="queries a folder")
    parser.add_argument("--work", type=Path, default=Path("runs/tune_code_ranking"))
    options = parser.parse_args()
    folders = [asked_of(one, options.work / one.name, options.limit) for one in options.folders]
    chosen = {name: now(name) for name in TRIED}
    best = score(folders)
    print("as it is", chosen, best, flush=True)
    for number in itertools.count(1):
        before = dict(chosen)
        for name, (_, _, values) in TRIED.items():
            scores = {chosen[name]: best}
            for value in (each for each in values if each != chosen[name]):
                put(name, value)
                scores[value] = score(folders)
            winner = max(scores, key=lambda value: sum(scores[value]))
            if sum(scores[winner]) > sum(best) + 1e-9:
                chosen[name], best = winner, scores[winner]
            put(name, chosen[name])
            print(number, name, scores, "->", chosen[name], flush=True)
        if chosen == before:
            break
    print(chosen, best)


if __name__ == "__main__":
    main()

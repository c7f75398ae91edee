"""The code adapter of mini against plain all-MiniLM-L6-v2 and BM25, on held-out local sets.

    python benchmarks/code_gains.py --data ../shared/data [--adapter FOLDER] [--only SET ...]

The adapter is mini's own by default. Of POJ-104 each problem gives its first 50 programs. Every
number found is kept in a file beside the results, and every vector in ``--vectors``, so that the
command can be repeated after a stop, and no text that several sets share is read twice.
The text half of mini is all-MiniLM-L6-v2: without an adapter both give the same vectors.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import RESULTS, facts, write_result

from codeembed.evaluation.measuring import Scorer, bm25_scores, measure, vector_scores
from codeembed.evaluation.robustness import robustness_of
from codeembed.evaluation.sets import RetrievalSet, read_set, set_names
from mmembed.embedder import Embedder
from mmembed.vector_cache import VectorCache


def first_of_classes(data: RetrievalSet, size: int) -> RetrievalSet:
    """A set of programs with the first ``size`` of every class; other sets as they are."""
    if not data.own:
        return data
    kept: list[int] = []
    taken: Counter[int] = Counter()
    for number, others in enumerate(data.relevant):
        label = min(number, *others)
        if taken[label] < size:
            taken[label] += 1
            kept.append(number)
    place = {number: at for at, number in enumerate(kept)}
    codes = tuple(data.documents[number] for number in kept)
    relevant = tuple(
        frozenset(place[each] for each in data.relevant[number] if each in place) for number in kept
    )
    return replace(data, queries=codes, documents=codes, relevant=relevant)


def main() -> None:
    """Measure what is not measured yet, and write ``results/code_gains.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--only", nargs="*", default=[*set_names(), "robustness"])
    parser.add_argument(
        "--programs", type=int, default=50, help="of each class, where a set is its own queries"
    )
    parser.add_argument("--partial", type=Path, default=RESULTS / ".code_gains.partial.json")
    parser.add_argument("--vectors", type=Path, default=Path("runs/code_gains.db"))
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.partial.exists():
        found = json.loads(options.partial.read_text(encoding="utf-8"))
    model = Embedder.from_pretrained("mini")
    model.cache = VectorCache(options.vectors)
    if options.adapter is not None:
        if "code" in model.adapters.names:
            model.adapters.remove("code")
        model.adapters.load(options.adapter, name="code")
    tasks: dict[str, str | None] = {"minilm": None, "minilm+code": "code"}
    scorers: dict[str, Scorer] = {"bm25": bm25_scores}
    scorers |= {system: vector_scores(model, task) for system, task in tasks.items()}
    for name in (name for name in options.only if name != "robustness"):
        data = first_of_classes(read_set(name, options.data), options.programs)
        for system, scorer in scorers.items():
            if system not in found.setdefault(name, {}):
                found[name][system] = measure(data, scorer).as_dict()
                _keep(options.partial, found)
                print(name, system, round(found[name][system]["ndcg10"], 4), flush=True)
    if "robustness" in options.only:
        curves = found.setdefault("robustness", {})
        for system, task in tasks.items():
            if system not in curves:
                curves[system] = robustness_of(model, task, options.data).as_dict()
                _keep(options.partial, found)
                print("robustness", system, curves[system], flush=True)
    missing = [name for name in set_names() if len(found.get(name, {})) < len(scorers)]
    result = {"machine": facts("torch", "transformers"), "not_measured": missing, "sets": found}
    write_result("code_gains", result)


def _keep(file: Path, found: dict[str, Any]) -> None:
    partial = file.with_suffix(".writing")
    partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
    partial.replace(file)


if __name__ == "__main__":
    main()

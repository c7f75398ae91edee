"""Every local text set of ``mmembed eval`` by our evaluator and by mteb's, on the same vectors.

    python benchmarks/mteb_agreement.py --data ../shared/data [--model mini] [--only NAME ...]
        [--most N]

What is compared is how vectors are scored: texts are embedded once and kept in --work, which
``local_benchmarks.py`` shares. A set that is in --work is not measured again, so the command can be
repeated after a stop. mteb gives retrieval figures with five places.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from local_benchmarks import data_of, remembering
from machine import facts, write_result

from mmembed.evaluation.benchmarks import BENCHMARKS, read_benchmark
from mmembed.evaluation.benchmarks.measured import Measured
from mmembed.evaluation.benchmarks.registry import find_data
from mmembed.evaluation.benchmarks.tasks import Encoder, Retrieval, Sides, Task
from mmembed.evaluation.mteb_model import MtebModel
from mmembed.evaluation.mteb_tasks import SAME_METRICS, mteb_scores
from mmembed.evaluation.runs import save_json


def text_sets() -> Iterator[str]:
    """Benchmarks of texts alone, and the one that has texts beside pictures of pages."""
    yield from (name for name, one in BENCHMARKS.items() if one.modalities == ("text",))
    yield "pages"


def text_tasks(name: str, data: Path, most: int | None) -> Mapping[str, Task]:
    """The tasks of a benchmark that hold nothing but texts."""
    tasks = read_benchmark(name, find_data(BENCHMARKS[name], data_of(name, data)), most)
    return {key: task for key, task in tasks.items() if _is_text(task)}


def _is_text(task: Any) -> bool:
    sides = [getattr(task, side, ()) for side in ("queries", "documents", "first", "items")]
    return all(isinstance(item, str) for side in sides for item in side)


def compared(model: Encoder, name: str, task: Task) -> dict[str, Any]:
    """The main metric by both, and the largest difference of all metrics that both have.

    Ours count ties against the model, and trec_eval, which mteb asks, breaks them by the documents'
    names. So the difference is told once more where ours are broken that way.
    """
    sides = task.encode(model)
    ours = task.score(sides)
    theirs = mteb_scores(MtebModel(model), name, task)  # type: ignore[arg-type]
    found = {
        "queries": ours.queries,
        "candidates": ours.candidates,
        "metric": ours.main,
        "ours": round(ours.score, 6),
        "mteb": round(float(theirs[SAME_METRICS[ours.main]]), 6),
        "largest_difference": _apart(ours, theirs),
    }
    if isinstance(task, Retrieval):
        found["with_ties_as_trec_eval"] = _apart(_named_order(task, sides), theirs)
    return found


def _apart(ours: Measured, theirs: Mapping[str, Any]) -> float:
    both = [key for key in ours.metrics if key in SAME_METRICS]
    return round(max(abs(ours.metrics[k].value - float(theirs[SAME_METRICS[k]])) for k in both), 7)


def _named_order(task: Retrieval, sides: Sides) -> Measured:
    """Measured by the places of documents, those of equal scores by falling name."""
    scores, gains = task.matrices(sides)
    names = np.argsort(np.argsort([f"d{place}" for place in range(scores.shape[1])]))
    order = np.lexsort((np.broadcast_to(-names, scores.shape), -scores), axis=1)
    places = np.empty(scores.shape)
    np.put_along_axis(places, order, np.arange(scores.shape[1], dtype=float)[None], axis=1)
    return task.measured(-places, gains)


def difference(found: Mapping[str, Any]) -> float:
    """The largest difference, ties of retrieval broken alike."""
    return float(found.get("with_ties_as_trec_eval", found["largest_difference"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--work", type=Path, default=Path("runs/local_benchmarks"))
    parser.add_argument("--only", nargs="*", default=[], choices=list(text_sets()))
    parser.add_argument("--most", type=int, help="cut each subset to a sample of so many")
    options = parser.parse_args()
    model = remembering(options.model, options.work)
    kept = options.work / "mteb"
    for name in options.only or text_sets():
        if (kept / f"{name}.json").exists():
            continue
        found = {
            subset: compared(model, f"Local{name.title().replace('-', '')}", task)
            for subset, task in text_tasks(name, options.data, options.most).items()
        }
        save_json(found, kept / f"{name}.json")
        worst = max(map(difference, found.values()))
        print(name, f"{len(found)} subsets, largest difference {worst:.1e}", flush=True)
    sets = {file.stem: json.loads(file.read_text()) for file in sorted(kept.glob("*.json"))}
    every = [one for each in sets.values() for one in each.values()]
    write_result(
        "mteb_agreement",
        {
            "machine": facts("torch", "transformers", "mteb"),
            "model": options.model,
            "subsets": len(every),
            "same_without_regard_to_ties": sum(one["largest_difference"] < 1e-5 for one in every),
            "largest_difference": max(one["largest_difference"] for one in every),
            "with_ties_as_trec_eval": max(map(difference, every)),
            "sets": sets,
        },
    )


if __name__ == "__main__":
    main()

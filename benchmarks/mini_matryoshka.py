"""Cut vectors of mini: plain ones, and those of its task ``retrieval``.

    python benchmarks/mini_matryoshka.py --data ../shared/data
    python benchmarks/mini_matryoshka.py --render

nDCG@10 by dimension: of the held-out tasks of ``mini_tasks.py``, and of texts that were not trained
on. The task is a rotation of the plain vectors, so that these are made once and turned; the first
ones of every side are made through the task too, and must agree. ``--render`` puts the table into
``docs/mini.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_out import TASKS, Task
from machine import RESULTS, facts, write_result
from mini_tables import write_cuts
from mini_tasks import MATRYOSHKA, load_remembering, scored

from mmembed import Embedder
from mmembed.embeddings import truncate
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.registry import BENCHMARKS, read_benchmark
from mmembed.evaluation.benchmarks.tasks import Retrieval
from mmembed.multimodal.rotation import TASK
from mmembed.vector_cache import VectorCache

Array = np.ndarray[Any, Any]
COMPARED = 4


def texts(data: Path, own: Path) -> Iterator[Task]:
    """Retrieval among texts."""
    for name, folder in (("books", own), ("cranfield", data), ("xquad", data)):
        for part, found in read_benchmark(name, folder).items():
            if isinstance(found, Retrieval) and part in ("en", "terms", "sections"):
                yield judged(f"{name}, {part}", found, BENCHMARKS[name].licence)
    yield questions_about_filings(data)


def judged(name: str, found: Retrieval, licence: str) -> Task:
    relevant = np.zeros((len(found.queries), len(found.documents)), dtype=bool)
    for row, gains in enumerate(found.gains):
        relevant[row, list(gains)] = True
    return Task(name, found.queries, found.documents, relevant, licence)


def questions_about_filings(data: Path) -> Task:
    """FinanceBench: a question and the passages of annual reports that answer it."""
    rows = rows_of(data / "financebench_text/qa.jsonl.gz")
    told = [{each["text"] for each in row["evidence"] if each["text"].strip()} for row in rows]
    passages = sorted(set().union(*told))
    kept = [(row["question"], answers) for row, answers in zip(rows, told, strict=True) if answers]
    relevant = np.array([[text in answers for text in passages] for _, answers in kept])
    questions = [question for question, _ in kept]
    return Task("financebench", questions, passages, relevant, "CC BY-NC 4.0, measured only")


def both(model: Embedder, items: Sequence[Any]) -> dict[str, Array]:
    """Plain vectors, and the same turned.

    Raises:
        AssertionError: the task gives others.
    """
    plain = model.encode(items)
    turned = plain @ model.heads.task_dense[TASK].weight.detach().numpy().T
    made = model.encode(items[:COMPARED], task=TASK)
    np.testing.assert_allclose(truncate(turned[:COMPARED], None), made, atol=1e-4)
    return {"plain": plain, f"task {TASK}": turned}


def by_dimension(model: Embedder, task: Task) -> dict[str, Any]:
    queries, candidates = both(model, task.queries), both(model, task.candidates)
    return {
        name: {
            str(dim): scored(
                truncate(queries[name], dim) @ truncate(candidates[name], dim).T, task
            )["nDCG@10"]
            for dim in MATRYOSHKA
        }
        for name in queries
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=Path, default=Path("data"), help="holds text/")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    if args.render:
        write_cuts(json.loads((RESULTS / "mini_matryoshka.json").read_text(encoding="utf-8")))
        return
    model = load_remembering(args.model, args.cache)
    model.cache = VectorCache(args.cache / "vectors.sqlite")
    tasks = [*texts(args.data, args.texts)]
    tasks += [task for group in TASKS.values() for task in group(args.data)]
    measured: dict[str, Any] = {}
    for task in tasks:
        measured[task.name] = {
            "queries": len(task.queries),
            "candidates": len(task.candidates),
            "source": task.source,
            "found": by_dimension(model, task),
        }
        for name, found in measured[task.name]["found"].items():
            print(task.name, name, {dim: one["value"] for dim, one in found.items()}, flush=True)
        result = {
            "what": f"nDCG@10 by dimension of cut vectors, plain and of the task {TASK}",
            "command": "python benchmarks/mini_matryoshka.py",
            "tasks": measured,
            "machine": facts("torch", "transformers"),
        }
        write_result("mini_matryoshka", result)


if __name__ == "__main__":
    main()

"""Token vectors over mini's frozen text half, beside its dense ones, BM25, and an untrained head.

    mmembed train configs/mini/multi-vector.yaml
    python benchmarks/mini_late.py --data ../shared/data

Pages are those of ``mini_tasks.py``; code is CoSQA's first queries against their functions and
others, plain and with the adapter for code. Nothing here was trained on. MaxSim is exact.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held_out import Task, pages
from machine import facts, write_result
from mini_tasks import load_remembering, scored

from codeembed.evaluation.measuring import bm25_scores
from codeembed.evaluation.sets import read_set
from mmembed import Embedder
from mmembed.search.maxsim import maxsim

Array = np.ndarray[Any, Any]
QUERIES, FUNCTIONS = 200, 600


def code(data: Path) -> Task:
    """CoSQA's first queries, their functions, and functions that answer none of them."""
    whole = read_set("cosqa", data)
    answers = whole.relevant[:QUERIES]
    kept = sorted({number for one in answers for number in one})
    others = (number for number in range(len(whole.documents)) if number not in set(kept))
    kept += [number for number, _ in zip(others, range(FUNCTIONS - len(kept)), strict=False)]
    texts = [whole.documents[number] for number in kept]
    relevant = np.array([[number in one for number in kept] for one in answers], dtype=bool)
    source = "CoSQA, research only"
    return Task("query → code", whole.queries[:QUERIES], texts, relevant, source, by_words=texts)


def both(model: Embedder, task: Task, adapter: str | None = None) -> tuple[Array, Array, float]:
    """Scores by dense vectors and by token vectors, and token vectors a candidate."""
    asked, found = (
        model.encode(items, output=("dense", "multi"), task=adapter)
        for items in (task.queries, task.candidates)
    )
    tokens = float(np.mean([len(one) for one in found.multi]))
    return asked.dense @ found.dense.T, maxsim(asked.multi, found.multi), tokens


def measure(model: Embedder, task: Task) -> dict[str, Any]:
    """Every way of scoring the task."""
    torch.manual_seed(0)
    untrained = Embedder(model.backbone, model.config)
    scores = {"BM25": bm25_scores(task.queries, task.by_words)}
    scores["dense"], scores["token vectors"], tokens = both(model, task)
    _, scores["token vectors, untrained head"], _ = both(untrained, task)
    if task.name == "query → code":
        dense, late, _ = both(model, task, "code")
        scores |= {"dense, adapter code": dense, "token vectors, adapter code": late}
    return {
        "queries": len(task.queries),
        "candidates": len(task.candidates),
        "source": task.source,
        "tokens_a_candidate": round(tokens, 1),
        "found": {name: scored(one, task) for name, one in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--model", default="runs/mini-multi-vector/multi-vector/model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_remembering(args.model, args.cache)
    tasks: dict[str, Any] = {}
    for task in (pages(args.data)[0], code(args.data)):
        tasks[task.name] = measure(model, task)
        for name, found in tasks[task.name]["found"].items():
            print(task.name, name, found["nDCG@10"], flush=True)
        result = {
            "what": "held-out retrieval by token vectors of 128 dimensions and MaxSim",
            "command": "python benchmarks/mini_late.py",
            "tasks": tasks,
            "machine": facts("torch", "transformers"),
        }
        write_result("mini_late", result)


if __name__ == "__main__":
    main()

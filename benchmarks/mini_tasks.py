"""What mini does on held-out data, task by task, beside its untrained start and simple baselines.

    python benchmarks/mini_tasks.py --data ../shared/data [--cache CACHE] [--only figures ...]
    python benchmarks/mini_tasks.py --render

The start is mini's own towers with a connector of random weights. The baseline is a perceptron from
the tower's mean-pooled features (all 2,112) to the text vectors, trained by symmetric InfoNCE on
the training rows of mini's own sets; frames, and images with words, are averaged. Tasks with text
layer are measured against BM25 and against the text alone, composed queries against each half.
The command writes ``results/mini_tasks.json``; ``--render`` puts its tables into ``docs/mini.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from baseline_mlp import Perceptron
from held_out import TASKS, Task
from machine import RESULTS, facts, write_result
from mini_mixed import measure_mixed
from mini_tables import write_tables

from mmembed import Embedder
from mmembed.backbones import model_folder
from mmembed.backbones.composed import ComposedVLM
from mmembed.embeddings import truncate
from mmembed.gpte.metrics import bootstrap_interval, first_ranks, ndcg
from mmembed.multimodal.feature_cache import RememberedTower
from mmembed.multimodal.train_mini import fresh_model

Array = np.ndarray[Any, Any]
logger = logging.getLogger(__name__)

CUTOFFS = (1, 5, 10)
MATRYOSHKA = (384, 256, 128, 64)


class System(Protocol):
    """Whatever gives vectors of items."""

    def encode(self, inputs: Sequence[Any], *, instruction: str | None = None) -> Array: ...


def scored(scores: Array, task: Task) -> dict[str, Any]:
    """Share of queries with an answer among the first k, and nDCG@10, with 95 % intervals."""
    if task.left_out is not None:
        scores = np.where(task.left_out, -1e9, scores)
    ranks = first_ranks(scores, task.relevant)
    values: dict[str, Array] = {f"R@{k}": (ranks <= k).astype(float) for k in CUTOFFS}
    values["nDCG@10"] = ndcg(scores, task.relevant, 10)
    return {
        name: {
            "value": round(float(one.mean()), 4),
            "interval": [round(end, 4) for end in bootstrap_interval(one)],
        }
        for name, one in values.items()
    }


class Remembered:
    """An encoder that encodes no item twice: tasks share many."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._known: dict[str, Array] = {}

    def encode(self, inputs: Sequence[Any], instruction: str | None = None) -> Array:
        keys = [f"{instruction} {item!r}" for item in inputs]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            items = [inputs[i] for i in new.values()]
            found = self._system.encode(items, instruction=instruction)
            self._known.update(zip(new, found, strict=True))
        return np.stack([self._known[key] for key in keys])


def comparisons(task: Task, mini: System, model: Embedder) -> dict[str, Array]:
    """Scores of what a task is compared with besides the start and the perceptron."""
    found: dict[str, Array] = {}
    if task.by_words:
        from codeembed.evaluation.measuring import bm25_scores

        found["BM25 on the text layer"] = bm25_scores(task.queries, task.by_words)
        words = [text if text.strip() else "?" for text in task.by_words]
        found["text half alone"] = mini.encode(task.queries) @ mini.encode(words).T
        if "multi" in model.outputs:
            from mmembed.search.maxsim import maxsim

            asked = model.encode(task.queries, output="multi")
            pages = model.encode(task.candidates, output="multi")
            found["mini, multi-vector"] = maxsim(asked, pages)
    if isinstance(task.queries[0], Mapping):
        candidates = mini.encode(task.candidates)
        found["image alone"] = mini.encode([q["image"] for q in task.queries]) @ candidates.T
        found["words alone"] = mini.encode([q["text"] for q in task.queries]) @ candidates.T
    return found


def shortened(task: Task, queries: Array, candidates: Array) -> dict[str, float]:
    """nDCG@10 by Matryoshka dimension."""
    found = {}
    for dim in MATRYOSHKA:
        cut = truncate(queries, dim) @ truncate(candidates, dim).T
        found[str(dim)] = scored(cut, task)["nDCG@10"]["value"]
    return found


def measure(
    task: Task, systems: Mapping[str, System], model: Embedder, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The task's entry; what ``known`` has of other systems stays."""
    scores: dict[str, Array] = {}
    cut = known.get("ndcg@10_by_dimension", {})
    for name, system in systems.items():
        queries, candidates = system.encode(task.queries), system.encode(task.candidates)
        scores[name] = queries @ candidates.T
        if name == "mini":
            scores |= comparisons(task, system, model)
            cut = shortened(task, queries, candidates)
    found = {**known.get("found", {}), **{name: scored(one, task) for name, one in scores.items()}}
    return {
        "name": task.name,
        "queries": len(task.queries),
        "candidates": len(task.candidates),
        "source": task.source,
        "note": task.note,
        "found": found,
        "ndcg@10_by_dimension": cut,
    }


def remembering(model: ComposedVLM, cache: Path) -> Embedder:
    model.vision = RememberedTower(model.vision, cache)
    return Embedder(model)


def load_remembering(name: str, cache: Path, device: str | None = None) -> Embedder:
    """A composed model; what its tower gives is kept in the cache."""
    model = Embedder.from_pretrained(name, device=device)
    assert isinstance(model.backbone, ComposedVLM)
    model.backbone.vision = RememberedTower(model.backbone.vision, cache)
    return model


def untrained(cache: Path) -> Embedder:
    folder = model_folder("mini")
    assert folder is not None
    torch.manual_seed(0)
    return remembering(fresh_model(folder, 2048), cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", nargs="*", default=[*TASKS, "mixed"])
    parser.add_argument("--systems", nargs="*", default=["mini", "perceptron", "untrained start"])
    parser.add_argument("--result", default="mini_tasks")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    if args.render:
        write_tables(json.loads((RESULTS / "mini_tasks.json").read_text(encoding="utf-8")))
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = load_remembering(args.model, args.cache)
    make: dict[str, Callable[[], System]] = {
        "mini": lambda: model,
        "perceptron": lambda: Perceptron(model, args.data, args.cache),
        "untrained start": lambda: untrained(args.cache),
    }
    systems = {name: Remembered(make[name]()) for name in args.systems}
    file = RESULTS / f"{args.result}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    tasks: dict[str, Any] = kept.get("tasks", {})
    mixed = kept.get("mixed")
    for group in args.only:
        if group == "mixed":
            mixed = measure_mixed(args.data, systems, mixed or {})
        else:
            for task in TASKS[group](args.data):
                tasks[task.name] = measure(task, systems, model, tasks.get(task.name, {}))
                logger.info("%s: %s", task.name, tasks[task.name]["found"])
        # Group by group, so that a stopped run goes on with --only.
        result = {
            "what": "held-out tasks; R@k is the share of queries with an answer among the first k",
            "command": "python benchmarks/mini_tasks.py",
            "tasks": tasks,
            "mixed": mixed,
            "machine": facts("torch", "transformers"),
        }
        write_result(args.result, result)


if __name__ == "__main__":
    main()

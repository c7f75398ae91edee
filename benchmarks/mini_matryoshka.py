"""Cut vectors of mini, plain and with the adapter that was trained for it.

    mmembed train configs/mini/retrieval.yaml
    python benchmarks/mini_matryoshka.py --data ../shared/data

nDCG@10 of held-out tasks of ``mini_tasks.py`` by dimension. Queries and candidates both go through
the adapter, pictures too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from held_out import TASKS
from machine import facts, write_result
from mini_tasks import MATRYOSHKA, load_remembering, scored

from mmembed.embeddings import truncate

NAMES = ("query → page", "text → figure", "text → emoji", "text → photo, groceries")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--model", default="runs/mini-retrieval/retrieval/model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_remembering(args.model, args.cache)
    tasks = [task for group in ("pages", "figures", "photos") for task in TASKS[group](args.data)]
    measured: dict[str, Any] = {}
    for task in (task for task in tasks if task.name in NAMES):
        measured[task.name] = {}
        for name, adapter in (("plain", None), ("adapter retrieval", "retrieval")):
            queries, candidates = (
                model.encode(items, task=adapter) for items in (task.queries, task.candidates)
            )
            measured[task.name][name] = {
                str(dim): scored(truncate(queries, dim) @ truncate(candidates, dim).T, task)[
                    "nDCG@10"
                ]
                for dim in MATRYOSHKA
            }
            print(task.name, name, measured[task.name][name], flush=True)
        result = {
            "what": "nDCG@10 by dimension of cut vectors, plain and with the adapter retrieval",
            "command": "python benchmarks/mini_matryoshka.py",
            "tasks": measured,
            "machine": facts("torch", "transformers"),
        }
        write_result("mini_matryoshka", result)


if __name__ == "__main__":
    main()

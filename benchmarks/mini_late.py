"""Whether token vectors over mini's frozen text half find more than its dense vectors do.

    python benchmarks/mini_late.py --data ../shared/data

A linear head of 128 dimensions starts from the principal components of token states, and learns
1,000 steps on sections of textbooks and on code: InfoNCE of mean MaxSim in both directions, and the
dense scores as a teacher. States are made once and kept in the cache. MaxSim is exact, and measured
alone, over the 20 candidates that dense vectors find first, and in a sum with the dense score.
Development sets were there to choose by; pages and CoSQA's functions were measured once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held_out import Task, pages
from machine import facts, write_result
from mini_tasks import load_remembering, scored
from torch import Tensor
from torch.nn import functional as F

from codeembed.evaluation.measuring import bm25_scores
from codeembed.evaluation.sets import read_set
from mmembed import Embedder
from mmembed.embedder import EmbedderConfig
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.gpte.objectives.multivector import maxsim as soft_maxsim
from mmembed.search.maxsim import maxsim

Array = np.ndarray[Any, Any]
QUERIES, FUNCTIONS = 200, 600
DIM, STEPS, BATCH, RATE, TEMPERATURE, FIRST = 128, 1000, 20, 5e-4, 0.02, 20
QUERY_TOKENS, DOCUMENT_TOKENS = 40, 112  # in training
TRAINED = {"sections": "text", "docstring": "code", "comment": "code"}
MEASURED = ("sections-dev", "docstring-dev", "sections-test", "docstring-test")


@dataclass(frozen=True)
class States:
    """Dense vectors ``(n, d)`` of items, and unit token states ``(t, d)`` of each."""

    dense: Array
    tokens: list[Array]

    @classmethod
    def of(cls, model: Embedder, items: Any, file: Path) -> States:
        """Made by the model, or read from the file where it is there."""
        if not file.exists():
            found = model.encode(items, output=("dense", "multi"))
            lengths = np.array([len(one) for one in found.multi])
            joined = np.concatenate(found.multi).astype(np.float16)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, dense=found.dense, joined=joined, lengths=lengths)
        kept = np.load(file)
        parts = np.split(kept["joined"], np.cumsum(kept["lengths"])[:-1])
        return cls(kept["dense"], [part.astype(np.float32) for part in parts])

    def through(self, head: Array | None) -> list[Array]:
        """Unit token vectors."""
        if head is None:
            return self.tokens
        made = (one @ head.T for one in self.tokens)
        return [one / np.linalg.norm(one, axis=1, keepdims=True) for one in made]

    def padded(self, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Some rows, cut, and which of their places are tokens."""
        chosen = [torch.from_numpy(self.tokens[int(row)][:most]) for row in rows]
        lengths = torch.tensor([len(one) for one in chosen])
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]


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


def pairs(file: Path) -> Task:
    """Queries and what answers them."""
    rows = rows_of(file)
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    relevant = np.array([[row["positive"] == text for text in texts] for row in rows], dtype=bool)
    name = file.name.removesuffix(".jsonl.gz")
    return Task(name, [r["query"] for r in rows], texts, relevant, "own data", by_words=texts)


def components(sets: list[tuple[States, States]]) -> Array:
    """``(DIM, d)``: principal components of all token states."""
    every = np.concatenate([one for sides in sets for side in sides for one in side.tokens])
    _, axes = np.linalg.eigh(np.cov(every.T))
    return axes[:, ::-1][:, :DIM].T.astype(np.float32)


def learned(sets: list[tuple[States, States]], start: Array) -> Array:
    """The head after training."""
    draw = torch.Generator().manual_seed(0)
    head = torch.from_numpy(start.copy()).requires_grad_(True)
    optimizer = torch.optim.Adam([head], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for step in range(STEPS):
        asked, told = sets[int(torch.randint(len(sets), (1,), generator=draw))]
        rows = torch.randperm(len(asked.tokens), generator=draw)[:BATCH]
        queries, documents = asked.padded(rows, QUERY_TOKENS), told.padded(rows, DOCUMENT_TOKENS)
        sides = [(F.normalize(x @ head.T, dim=-1), mask) for x, mask in (queries, documents)]
        late = soft_maxsim(*sides[0], *sides[1], mean=True) / TEMPERATURE
        dense = torch.from_numpy(asked.dense[rows] @ told.dense[rows].T) / TEMPERATURE
        own = torch.arange(len(rows))
        contrast = (F.cross_entropy(late, own) + F.cross_entropy(late.T, own)) / 2
        taught = F.kl_div(
            late.log_softmax(1), dense.log_softmax(1), reduction="batchmean", log_target=True
        )
        optimizer.zero_grad()
        (contrast + taught).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {contrast.item():.3f} {taught.item():.3f}", flush=True)
    return head.detach().numpy()


def among_first(dense: Array, late: Array) -> Array:
    """MaxSim where the dense score is among the query's first, and nothing elsewhere."""
    first = np.argsort(-dense, axis=1)[:, :FIRST]
    scores = dense - 1e3
    np.put_along_axis(scores, first, np.take_along_axis(late, first, axis=1), axis=1)
    return scores


def measure(task: Task, asked: States, told: States, heads: dict[str, Array | None]) -> Any:
    """Every way of scoring the task."""
    dense = asked.dense @ told.dense.T
    scores = {"BM25": bm25_scores(task.queries, task.by_words), "dense": dense}
    tokens = np.array([len(one) for one in asked.tokens])[:, None]
    for name, head in heads.items():
        late = maxsim(asked.through(head), told.through(head)) / tokens
        scores[name] = late
        scores[f"{name}, among the first {FIRST}"] = among_first(dense, late)
        scores[f"dense + {name}"] = dense + late
    return {
        "queries": len(task.queries),
        "candidates": len(task.candidates),
        "source": task.source,
        "tokens_a_candidate": round(float(np.mean([len(one) for one in told.tokens])), 1),
        "found": {name: scored(one, task) for name, one in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--own", type=Path, default=Path("data"), help="holds text/ and code/")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    packaged = load_remembering("mini", args.cache)
    model = Embedder(packaged.backbone, EmbedderConfig(multi_dim=packaged.dim))
    assert model.heads.multi is not None
    torch.nn.init.eye_(model.heads.multi.linear.weight)  # token states as they are
    kept = args.cache / f"states-{model.fingerprint[-8:]}"

    def states(task: Task) -> tuple[States, States]:
        name = task.name.replace(" → ", "-to-")
        sides = {"queries": task.queries, "candidates": task.candidates}
        asked, told = (
            States.of(model, x, kept / f"{name}-{side}.npz") for side, x in sides.items()
        )
        return asked, told

    def own(name: str) -> Path:
        return args.own / TRAINED[name.partition("-")[0]] / f"{name}.jsonl.gz"

    taught = []
    for name in TRAINED:
        rows = rows_of(own(f"{name}-train"))
        sides = [row["query"] for row in rows], [row["positive"] for row in rows]
        taught.append(states(Task(f"{name}-train", *sides, np.empty(0), "own data")))
    start = components(taught)
    heads = {"states": None, "components": start, "head": learned(taught, start)}
    tasks = [*(pairs(own(name)) for name in MEASURED), pages(args.data)[0], code(args.data)]
    measured: dict[str, Any] = {}
    for task in tasks:
        measured[task.name] = measure(task, *states(task), heads)
        for name, found in measured[task.name]["found"].items():
            print(task.name, name, found["nDCG@10"], flush=True)
        result = {
            "what": "retrieval by token vectors and MaxSim over mini's frozen text half",
            "systems": {
                "states": "token states of 384 dimensions",
                "components": "their 128 first principal components",
                "head": "128 dimensions learned from those",
            },
            "command": "python benchmarks/mini_late.py",
            "tasks": measured,
            "machine": facts("torch", "transformers"),
        }
        write_result("mini_late", result)


if __name__ == "__main__":
    main()

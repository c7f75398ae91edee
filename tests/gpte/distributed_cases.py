"""Run by test_distributed.py in several processes: gradients against one process's, as JSON.

Usage: distributed_cases.py STORE OUT
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.agreement import agreed_rounds
from mmembed.gpte.context import neighbours
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.distributed import (
    average_gradients,
    fill_gradients,
    gather,
    gather_padded,
    shard_of,
)
from mmembed.gpte.gradcache import CachedColumn, cached_backward, chunk_rows
from mmembed.gpte.objectives import (
    MASKS,
    OBJECTIVES,
    SCD,
    CodeSageWeights,
    DuplicateMask,
    EmbeddingDistillation,
    EntityContrast,
    GuideMask,
    Hardness,
    InfoNCE,
    Joint,
    KLDistillation,
    MarginMSE,
    Matryoshka,
    MixedNegatives,
    ModalityMask,
    Part,
    Quantized,
    SparsityPenalty,
    ThresholdMask,
    contrastive,
    learned_parameters,
)
from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.objectives.tokens import (
    mlm_loss,
    mntp_loss,
    ntp_loss,
    rtd_loss,
    token_factor,
)
from mmembed.gpte.protocols import Columns, Loss, Outputs
from mmembed.gpte.queue import MomentumQueue
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates, offsets_of

SPLIT = (4, 3)  # queries per process: unequal on purpose
N, K, D, VOCAB = sum(SPLIT), 2, 6, 9


def draw(*shape: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


class Encoder(nn.Module):
    """Linear heads over the inputs, so that parameters' gradients can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Parameter(draw(D, D, seed=1))
        self.multi = nn.Parameter(draw(D, 4, seed=2))
        self.sparse = nn.Parameter(draw(D, VOCAB, seed=3))

    def collate(self, rows: Sequence[Row]) -> list[Tensor]:
        return [r.extras["x"] for r in rows]

    def forward(self, rows: Sequence[Tensor]) -> Outputs:
        lengths = [len(r) for r in rows]
        hidden = torch.cat(list(rows)) @ self.dense if rows else self.dense[:0]
        states = TokenStates(hidden, offsets_of(lengths))
        width = max(lengths, default=0)
        mask = torch.arange(width) < torch.tensor(lengths).reshape(-1, 1)
        multi = torch.stack([F.pad(r, (0, 0, 0, width - len(r))) for r in rows]) @ self.multi
        pooled = torch.stack([r.mean(0) for r in rows])
        likely = (pooled @ self.dense).softmax(dim=1)
        chosen = F.one_hot(likely.argmax(dim=1), D).to(likely)
        return Outputs(
            dense=pooled @ self.dense,
            multi=F.normalize(multi, dim=-1) * mask[..., None],
            multi_mask=mask,
            sparse=F.softplus(pooled @ self.sparse),
            states=states,
            routing=torch.stack([likely, chosen], dim=1).unsqueeze(1),
        )


def inputs(count: int, seed: int) -> list[Row]:
    lengths = torch.randint(1, 5, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Row([0] * n, n, {"x": draw(n, D, seed=100 * seed + i)}) for i, n in enumerate(lengths)]


ROWS = {"query": inputs(N, 1), "positive": inputs(N, 2), "negative": inputs(N * K, 3)}
META = {
    "query_hash": torch.tensor([1, 2, 3, 1, 4, 5, 6]),
    "positive_hash": torch.tensor([11, 12, 13, 14, 15, 12, 16]),
    "negative_hash": torch.arange(20, 20 + N * K),
    "modality": torch.tensor([1, 2, 1, 2, 1, 1, 2]),
    "negative_modality": torch.tensor([1, 2]).repeat(N),
    "label": torch.tensor([0.1, 0.9, 0.5, 0.5, 0.3, 0.9, 0.0], dtype=torch.float64),
    "teacher": draw(N, 1 + K, seed=8),
    "entities": torch.tensor([[0, 1], [2, 3], [0, 4], [5, 1], [6, 2], [7, 0], [3, 5]]),
}
GUIDE = {
    "query": draw(N, D, seed=4),
    "positive": draw(N, D, seed=5),
    "negative": draw(N * K, D, seed=6),
}
TOKEN_LABELS = [
    torch.randint(0, VOCAB, (r.tokens,), generator=torch.Generator().manual_seed(i))
    for i, r in enumerate(ROWS["query"])
]


def part(first: int, last: int) -> dict[str, slice]:
    """The rows of each column that belong to queries ``first`` to ``last``."""
    return {
        "query": slice(first, last),
        "positive": slice(first, last),
        "negative": slice(first * K, last * K),
    }


def columns(
    outputs: Mapping[str, Outputs],
    at: Mapping[str, slice],
    shared: Mapping[str, Tensor],
    negatives: bool,
) -> Columns:
    of = {name: at["negative" if name.startswith("negative") else "query"] for name in META}
    guide = {name: Outputs(dense=value[at[name]]) for name, value in GUIDE.items()}
    return Columns(
        outputs["query"],
        outputs["positive"],
        outputs["negative"] if negatives else None,
        K if negatives else 0,
        meta={name: value[of[name]] for name, value in META.items()},
        guide=guide,
        shared=shared,
        keys=guide,  # of a momentum encoder, which is as frozen
    )


QUEUE = MomentumQueue(6, D).double()

QUEUED = ("four directions", "masks", "clip", "queue and negatives", "queue and weights", "moco")
every = ("q2d", "q2q", "d2q", "d2d")
CASES: dict[str, tuple[Any, bool]] = {
    "infonce": (InfoNCE(), False),
    "hard negatives": (InfoNCE(), True),
    "own negatives": (InfoNCE(hard_negatives="own"), True),
    "no in-batch": (InfoNCE(in_batch=False), True),
    "four directions": (InfoNCE(directions=every, learn_temperature=True), True),
    "sides": (InfoNCE(directions=every, partition="side"), True),
    "clip": (InfoNCE(directions=("q2d", "d2q"), partition="direction"), False),
    "masks": (
        InfoNCE(
            directions=every,
            masks=(DuplicateMask(), ThresholdMask(0.1), GuideMask(), ModalityMask(0.5)),
        ),
        True,
    ),
    "weights": (InfoNCE(weights=Hardness(3.0, on="all"), focal=1.0, margin=0.1), True),
    "queue and negatives": (InfoNCE(masks=(DuplicateMask(),)), True),
    "queue and weights": (InfoNCE(weights=Hardness(3.0, on="all"), focal=1.0), True),
    "codesage": (InfoNCE(weights=CodeSageWeights(), hardest=5), True),
    "maxsim": (InfoNCE(score="maxsim"), True),
    "sparse": (InfoNCE(score="sparse", temperature=1.0), True),
    "matryoshka": (Matryoshka(InfoNCE(), (6, 3)), True),
    "embedding_kd projected": (EmbeddingDistillation("cosine", teacher_width=D), True),
    "joint": (
        Joint(
            (
                Part(InfoNCE(learn_temperature=True), 0.3),
                Part(KLDistillation(), 2.0),
                Part(MarginMSE(), 0.1),
            )
        ),
        True,
    ),
    "l1": (SparsityPenalty(1.0, 2.0, query="l1", document="l1"), True),
}
MADE: dict[str, Callable[[], Any]] = {
    "joint": lambda: CASES["joint"][0],
    "matryoshka": lambda: CASES["matryoshka"][0],
    "mixed_negatives": lambda: MixedNegatives(InfoNCE(masks=(DuplicateMask(),)), pairs=2),
    "quantized": lambda: Quantized(InfoNCE()),
    "entities": lambda: EntityContrast(8, temperature=0.5),
    "scd": lambda: SCD(projector=5),
}
NEED_NEGATIVES = {"kl", "margin_mse", "triplet", "m3_kd", "pair_kl", "pair_softmax"}
NEED_NEGATIVES.add("mixed_negatives")
for _name, _cls in OBJECTIVES.items():
    _made: Any = MADE[_name]() if _name in MADE else _cls()
    CASES.setdefault(_name, (_made, _name in NEED_NEGATIVES))
    if _name not in NEED_NEGATIVES and _name not in ("scd", "isbert", "locality"):
        CASES.setdefault(f"{_name} with negatives", (_made, True))


TOKEN_LOSSES = ("mlm", "mntp", "ntp", "rtd")


class Problem:
    """A model, an objective and its learned parameters, the same on every process."""

    def __init__(self, objective: Any, negatives: bool, queue: bool) -> None:
        self.objective, self.negatives = objective, negatives
        self.model = Encoder()
        torch.manual_seed(7)
        self.learned = learned_parameters(objective, D).double()
        self.shared: dict[str, Tensor] = dict(self.learned.items())
        if queue:
            self.shared |= QUEUE.shared()

    def parameters(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.learned.parameters()]

    def loss(self, outputs: Mapping[str, Outputs], at: Mapping[str, slice]) -> Loss:
        found: Loss = self.objective(columns(outputs, at, self.shared, self.negatives))
        return found

    def plain(self, first: int, last: int, scale: float = 1.0) -> Loss:
        at = part(first, last)
        outputs = {
            name: self.model(self.model.collate(rows[at[name]])) for name, rows in ROWS.items()
        }
        loss = self.loss(outputs, at)
        (scale * loss.total).backward()
        return loss

    def cached(self, first: int, last: int, mlm: bool = False, scale: float = 1.0) -> Loss:
        at = part(first, last)
        chunks = {n: chunk_rows(rows[at[n]], max_rows=2) for n, rows in ROWS.items()}
        labels = [torch.cat(TOKEN_LABELS[first:last][i : i + 2]) for i in range(0, last - first, 2)]
        factor = token_factor(labels)

        def auxiliary(outputs: Outputs, number: int) -> Loss:
            assert outputs.states is not None
            states, head = outputs.states, lambda h: h @ self.model.sparse
            total = mlm_loss(states, labels[number], head, factor)
            return Loss(total, {"mlm": total.detach()})

        cached = {
            name: CachedColumn(
                self.model,
                c,
                self.model.collate,
                auxiliary=auxiliary if mlm and name == "query" else None,
                states=isinstance(self.objective, OBJECTIVES["isbert"]),
            )
            for name, c in chunks.items()
        }
        return cached_backward(
            cached,
            lambda o: self.loss(o, at),
            parameters=list(self.learned.parameters()),
            backward=lambda loss: (scale * loss).backward(),
        )

    def gradients(self) -> list[Tensor]:
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]
        for p in self.parameters():
            p.grad = None
        return found


def token_loss(kind: str, model: Encoder, first: int, last: int) -> Loss:
    """One of the token losses over the queries' states, normalised over all processes."""
    labels = torch.cat(TOKEN_LABELS[first:last])
    states = model(model.collate(ROWS["query"][first:last])).states
    if kind == "rtd":
        replaced = (labels % 2).long()
        total = rtd_loss(states.hidden.sum(1), replaced, token_factor([replaced]))
    else:
        losses = {"mlm": mlm_loss, "mntp": mntp_loss, "ntp": ntp_loss}
        if kind == "mntp":  # first tokens are predicted from nothing
            labels = labels.clone()
            labels[states.offsets[:-1]] = -100
        total = losses[kind](states, labels, lambda h: h @ model.sparse, token_factor([labels]))
    total.backward()
    return Loss(total, {kind: total.detach()})


def _tiles(problem: Problem) -> bool:
    """Whether the objective scores by the engine that tiles."""
    inner = getattr(problem.objective, "objective", problem.objective)
    return isinstance(inner, Contrastive) and inner.in_batch


def error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (ours, theirs))
    assert b.norm() > 1e-9, "an oracle without gradient tests nothing"
    return float((a - b).norm() / b.norm())


def tiled(run: Callable[[], Loss]) -> Loss:
    """The same by tiles of two rows."""
    whole = contrastive.score_loss
    contrastive.score_loss = functools.partial(whole, tile_rows=2)
    try:
        return run()
    finally:
        contrastive.score_loss = whole


def runs(problem: Problem, first: int, last: int) -> dict[str, Callable[[], Loss]]:
    return {
        "plain": lambda: problem.plain(first, last),
        "cached": lambda: problem.cached(first, last),
        "tiled": lambda: tiled(lambda: problem.plain(first, last)),
    }


def main(rank: int, world: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    QUEUE.push(draw(5, D, seed=9), torch.tensor([11, 90, 91, 92, 93]))
    names = [*CASES]
    problems = {
        name: Problem(objective, negatives, queue=name in QUEUED)
        for name, (objective, negatives) in CASES.items()
    }
    expected: dict[tuple[str, str], tuple[Loss, list[Tensor]]] = {}
    for name in names:
        for kind, run in runs(problems[name], 0, N).items():
            if kind == "tiled" and not _tiles(problems[name]):
                continue
            loss = run()
            expected[name, kind] = loss, problems[name].gradients()
    mlm = problems["infonce"].cached(0, N, mlm=True)
    expected["infonce", "mlm"] = mlm, problems["infonce"].gradients()
    for kind in TOKEN_LOSSES:
        alone = token_loss(kind, problems["infonce"].model, 0, N)
        expected["token", kind] = alone, problems["infonce"].gradients()
    context = (N, (1, 2), "cpu")
    met = neighbours(GUIDE, META, *context)
    # Accumulation: two steps, each the whole batch of its own queries on every process.
    accumulated = {}
    for name in names:
        for kind in ("plain", "cached"):
            for first, last in ((0, 2), (2, N)):
                getattr(problems[name], kind)(first, last, scale=0.5)
            accumulated[name, kind] = problems[name].gradients()

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    first = sum(SPLIT[:rank])
    last = first + SPLIT[rank]
    report: dict[str, Any] = {}

    def mean(values: Sequence[Tensor]) -> list[Tensor]:
        for value in values:
            dist.all_reduce(value)
        return [value / world for value in values]

    def record(name: str, loss: Loss, problem: Problem, want: tuple[Loss, list[Tensor]]) -> None:
        total = mean([loss.total.detach().double().clone()])[0]
        parts = {k: mean([v.double().clone()])[0] for k, v in sorted(loss.parts.items())}
        known = want[0].total.detach()
        report[name] = {
            "gradient": error(mean(problem.gradients()), want[1]),
            "value": float((total - known).abs() / known.abs().clamp_min(1e-9)),
            "parts": max(float((v - want[0].parts[k]).abs()) for k, v in parts.items()),
        }

    for name in names:
        for kind, run in runs(problems[name], first, last).items():
            if (name, kind) not in expected:
                continue
            record(f"{name}: {kind}", run(), problems[name], expected[name, kind])
    loss = problems["infonce"].cached(first, last, mlm=True)
    record("infonce: cached with mlm", loss, problems["infonce"], expected["infonce", "mlm"])

    for kind in TOKEN_LOSSES:
        loss = token_loss(kind, problems["infonce"].model, first, last)
        record(f"token: {kind}", loss, problems["infonce"], expected["token", kind])

    # Rank 0 takes query 0 then 2-3, rank 1 takes 1 then the rest: the same two global steps.
    cuts = ((0, 1), (2, 4)) if rank == 0 else ((1, 2), (4, N))
    report["accumulation"] = {}
    for (name, kind), expected_gradient in accumulated.items():
        for a, b in cuts:
            getattr(problems[name], kind)(a, b, scale=0.5)
        found = error(mean(problems[name].gradients()), expected_gradient)
        report["accumulation"][f"{name}: {kind}"] = found

    # A queue holds the keys of all processes, in the same order everywhere.
    queue = MomentumQueue(20, D).double()
    keys = draw(N, D, seed=12)
    queue.push(keys[first:last], torch.arange(first, last))
    report["queue"] = {
        "keys": float((queue.shared()["queue"] - F.normalize(keys, dim=1)).abs().max()),
        "hashes": queue.shared()["queue_hash"].tolist(),
    }

    # Token axes of different lengths meet; a process may hold no row at all.
    shard = shard_of(rank, "cpu")
    padded = gather_padded(torch.ones(rank, 1 + rank, 2), shard)
    report["empty process"] = list(padded.shape)
    learned = [nn.Parameter(torch.zeros(2))]
    if rank:
        learned[0].grad = torch.ones(2)
    fill_gradients(learned)
    average_gradients(learned)
    assert learned[0].grad is not None
    report["averaged"] = learned[0].grad.tolist()
    try:
        shard_of(3, "cpu", same=rank)
        report["disagreement"] = ""
    except ConfigError as problem_found:
        report["disagreement"] = str(problem_found)
    odd = ExampleBatch([Row([1], 1)], [Row([1], 1)] if rank else None)
    try:
        agreed_rounds(odd, {name: [rows] for name, rows in odd.columns.items()}, "cpu")
        report["other kinds"] = ""
    except ConfigError as problem_found:
        report["other kinds"] = str(problem_found)
    rows = [[Row([1], 1)]] * (rank + 1)
    report["rounds"] = agreed_rounds(ExampleBatch([Row([1], 1)]), {"query": rows}, "cpu")
    mine = {"positive": GUIDE["positive"][first:last]}
    hashes = {"positive_hash": META["positive_hash"][first:last]}
    report["neighbours"] = torch.equal(neighbours(mine, hashes, *context), met)
    half = torch.ones(rank + 1, 2, dtype=torch.bfloat16, requires_grad=True)
    every_half = gather(half, shard_of(rank + 1, "cpu"))
    (every_half * torch.arange(3.0)[:, None]).sum().backward()
    assert half.grad is not None
    report["half"] = [str(every_half.dtype), str(half.grad.dtype), half.grad[:, 0].tolist()]
    report["registered"] = sorted({*OBJECTIVES} - {type(o).name for o, _ in CASES.values()})
    report["masks"] = sorted(MASKS)
    Path(f"{out}.{rank}").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[1], sys.argv[2])

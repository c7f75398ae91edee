"""What every stage of every code recipe minimises, against the formula written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeembed.training.judging import JudgeStage
from codeembed.training.stages import CODE_STAGES
from mmembed.gpte.objectives import build_objective, learned_parameters
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.recipe import TrainStage, load_recipe

FILES = sorted((Path(__file__).parents[3] / "configs" / "recipes" / "code").glob("*.yaml"))
N, D, K, QUEUED = 3, 4, 2, 5


def drawn(rows: int, seed: int, width: int = D) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, dtype=torch.float64, generator=generator)


Q, P, NEG = drawn(N, 0), drawn(N, 1), drawn(N * K, 2)
KEYS = {"query": drawn(N, 3), "positive": drawn(N, 4)}
QUEUES = {"query": drawn(QUEUED, 5), "positive": drawn(QUEUED, 6)}
TEACHER = drawn(N, 7, 1 + K)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=-1)


def nll(positive: Tensor, negatives: list[Tensor]) -> Tensor:
    return torch.stack([positive, *negatives]).logsumexp(0) - positive


def one_way(anchors: Tensor, documents: list[Tensor], t: float) -> Tensor:
    """InfoNCE: the i-th document is right, all others, and those behind the N first, are not."""
    rows = []
    for i, anchor in enumerate(anchors):
        logits = [cos(anchor, document) / t for document in documents]
        rows.append(nll(logits[i], logits[:i] + logits[i + 1 :]))
    return torch.stack(rows).mean()


def plain(t: float) -> Callable[[], Tensor]:
    return lambda: one_way(Q, [*P], t)


def with_negatives(t: float) -> Callable[[], Tensor]:
    return lambda: one_way(Q, [*P, *NEG], t)


def queued(t: float) -> Callable[[], Tensor]:
    """MoCo, one way: what follows is of earlier batches."""
    return lambda: one_way(Q, [*P, *F.normalize(QUEUES["positive"], dim=1)], t)


def clip(t: float) -> Callable[[], Tensor]:
    return lambda: (one_way(Q, [*P], t) + one_way(P, [*Q], t)) / 2


def both_ways_at_once(t: float) -> Callable[[], Tensor]:
    """One softmax over the documents, and the other queries for the document."""

    def found() -> Tensor:
        rows = []
        for i in range(N):
            others = [j for j in range(N) if j != i]
            negatives = [cos(Q[i], P[j]) / t for j in others] + [
                cos(P[i], Q[j]) / t for j in others
            ]
            rows.append(nll(cos(Q[i], P[i]) / t, negatives))
        return torch.stack(rows).mean()

    return found


def both_sides(t: float, *, weighed: bool = False, earlier: bool = False) -> Callable[[], Tensor]:
    """NT-Xent: the negatives of a text are all others of both sides; with CodeSage's weights each
    counts by its share among them, with SynCoBERT's queues also the other sides of earlier ones."""

    def found() -> Tensor:
        rows = []
        for own, other, queue in ((Q, P, "positive"), (P, Q, "query")):
            for i in range(N):
                others = [j for j in range(N) if j != i]
                negatives = [cos(own[i], other[j]) / t for j in others]
                negatives += [cos(own[i], own[j]) / t for j in others]
                negatives += [cos(own[i], key) / t for key in QUEUES[queue] if earlier]
                shares = (
                    torch.stack(negatives).softmax(0) if weighed else torch.ones(len(negatives))
                )
                weighted = [x + w.log() for x, w in zip(negatives, shares, strict=True)]
                rows.append(nll(cos(own[i], other[i]) / t, weighted))
        return torch.stack(rows).mean()

    return found


def moco(t: float, *terms: str) -> Callable[[], Tensor]:
    def found() -> Tensor:
        sides = {"q": ("query", Q), "d": ("positive", P)}
        each = []
        for term in terms:
            _, anchors = sides[term[0]]
            other, _ = sides[term[-1]]
            candidates = [*KEYS[other], *F.normalize(QUEUES[other], dim=1)]
            each.append(one_way(anchors, candidates, t))
        return torch.stack(each).mean()

    return found


def six_terms(t: float) -> Callable[[], Tensor]:
    """CoCoSoDa: text and code against each other, and against keys of both sides."""

    def found() -> Tensor:
        keys = moco(t, "q2d", "d2q", "q2q", "d2d")()
        back = one_way(P, [*Q, *F.normalize(QUEUES["query"], dim=1)], t)
        return (4 * keys + queued(t)() + back) / 6

    return found


def softened(t: float) -> Callable[[], Tensor]:
    """SCodeR: the cross-encoder's distribution over a query's own candidates, and InfoNCE."""

    def found() -> Tensor:
        rows = []
        for i in range(N):
            own = [P[i], *NEG[i * K : (i + 1) * K]]
            student = torch.stack([cos(Q[i], d) / t for d in own]).softmax(0)
            teacher = TEACHER[i].softmax(0)
            rows.append((teacher * (teacher.log() - student.log())).sum() * t**2)
        return torch.stack(rows).mean() + with_negatives(t)()

    return found


def judging() -> Tensor:
    """SCodeR's discriminator: the positive's share among a query's own pairs."""
    logits = torch.cat([Q[:, :1], NEG[:, 0].view(N, K)], dim=1)
    return torch.stack([nll(row[0], [*row[1:]]) for row in logits]).mean()


FORMULAS: dict[tuple[str, str], Callable[[], Tensor]] = {
    ("c3p", "train"): clip(0.07),
    ("cocosoda", "train"): six_terms(0.07),
    ("code-mvp", "train"): both_ways_at_once(0.05),
    ("coderetriever", "train"): plain(0.05),
    ("codesage", "pairs"): both_sides(0.05, weighed=True),
    ("codet5p", "bimodal"): moco(0.07, "q2d", "d2q"),
    ("concord", "train"): with_negatives(0.05),
    ("contrabert", "train"): queued(0.07),
    ("contraflow", "train"): plain(0.07),
    ("cornstack", "train"): with_negatives(0.02),
    ("cpt-code", "train"): clip(0.05),
    ("graphcodebert", "search"): plain(0.05),
    ("scoder", "structure"): plain(0.05),
    ("scoder", "judge1"): judging,
    ("scoder", "first"): softened(0.05),
    ("scoder", "judge2"): judging,
    ("scoder", "train"): softened(0.05),
    ("syncobert", "train"): both_sides(0.05, earlier=True),
    ("transformcode", "train"): queued(0.07),
    ("unixcoder", "twice"): plain(0.05),
    ("unixcoder", "search"): plain(0.05),
}
STAGES = {
    (file.stem, stage.name): stage
    for file in FILES
    for stage in load_recipe(file, [], CODE_STAGES).stages
    if isinstance(stage, TrainStage) and stage.objective is not None
}


def test_every_objective_has_a_formula() -> None:
    assert STAGES.keys() == FORMULAS.keys()


@pytest.mark.parametrize("key", FORMULAS, ids=" ".join)
def test_an_objective_is_its_formula(key: tuple[str, str]) -> None:
    stage = STAGES[key]
    objective = build_objective(stage.objective)
    shared: dict[str, Tensor] = {**learned_parameters(objective, D).double()}
    if stage.momentum is not None:
        queues = {"queue": QUEUES["positive"], "query_queue": QUEUES["query"]}
        shared |= {name: F.normalize(queue, dim=1) for name, queue in queues.items()}
    has_negatives = stage.data.negatives > 0
    columns = Columns(
        Outputs(dense=Q),
        None if isinstance(stage, JudgeStage) else Outputs(dense=P),
        Outputs(dense=NEG) if has_negatives else None,
        K if has_negatives else 0,
        meta={
            "query_hash": torch.arange(N),
            "positive_hash": torch.arange(N, 2 * N),
            "negative_hash": torch.arange(2 * N, 2 * N + N * K),
            "teacher": TEACHER,
        },
        shared=shared,
        keys={side: Outputs(dense=keys) for side, keys in KEYS.items()},
    )
    found = objective(columns).total
    torch.testing.assert_close(found, FORMULAS[key](), rtol=1e-6, atol=1e-9, check_dtype=False)

"""Contrastive losses against loops over rows and candidates, in float64."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from gradients import check

from mmembed.errors import ConfigError
from mmembed.gpte.objectives import (
    CodeSageWeights,
    DuplicateMask,
    GuideMask,
    HardestSoftplus,
    Hardness,
    InfoNCE,
    ModalityMask,
    RankingHinge,
    Sigmoid,
    ThresholdMask,
    learned_parameters,
)
from mmembed.gpte.protocols import Columns, Outputs

N, K, D, T = 7, 2, 5, 0.1


def batch(k: int = K) -> Columns:
    torch.manual_seed(1)

    def leaf(rows: int) -> Outputs:
        return Outputs(dense=torch.randn(rows, D, dtype=torch.float64, requires_grad=True))

    return Columns(leaf(N), leaf(N), leaf(N * k) if k else None, k)


def leaves(columns: Columns) -> list[Tensor]:
    sides = (columns.query, columns.positive, columns.negative)
    return [s.dense for s in sides if s is not None and s.dense is not None]


def units(columns: Columns) -> list[Tensor]:
    return [F.normalize(x, dim=1) for x in leaves(columns)]


def rows(loss: Callable[[int, Tensor, list[Tensor]], Tensor], columns: Columns) -> Tensor:
    """The mean over ``i`` of ``loss(i, s_ii, scores of all other documents)``."""
    q, p, *rest = units(columns)
    documents = torch.cat([p, *rest])
    found = []
    for i in range(N):
        others = [q[i] @ documents[j] for j in range(len(documents)) if j != i]
        found.append(loss(i, q[i] @ p[i], others))
    return torch.stack(found).mean()


def softmax_loss(positive: Tensor, negatives: list[Tensor]) -> Tensor:
    return torch.stack([positive, *negatives]).logsumexp(0) - positive


@pytest.mark.parametrize("k", [0, K])
def test_additive_margin(k: int) -> None:
    columns = batch(k)
    expected = rows(lambda i, s, o: softmax_loss((s - 0.2) / T, [x / T for x in o]), columns)
    check(InfoNCE(temperature=T, margin=0.2)(columns).total, expected, leaves(columns))


def test_threshold_mask_spares_the_positive() -> None:
    columns = batch()
    expected = rows(
        lambda i, s, o: softmax_loss(s / T, [x / T for x in o if x <= s + 0.1]), columns
    )
    masked = InfoNCE(temperature=T, masks=(ThresholdMask(0.1),))
    check(masked(columns).total, expected, leaves(columns))
    assert not torch.isclose(expected, InfoNCE(temperature=T)(columns).total)


def test_relative_threshold() -> None:
    columns = batch()
    expected = rows(
        lambda i, s, o: softmax_loss(s / T, [x / T for x in o if x <= s - 0.05 * s.abs()]), columns
    )
    mask = ThresholdMask(-0.05, relative=True)
    check(InfoNCE(temperature=T, masks=(mask,))(columns).total, expected, leaves(columns))


def test_duplicates_by_hash() -> None:
    columns = batch()
    # 0 and 1 share a positive, 2 and 3 a query; a hard negative of 4 is 5's positive, and one of
    # 6 is its own positive (a data error); query 0 appears as document 4.
    query = torch.tensor([10, 11, 12, 12, 14, 15, 16])
    positive = torch.tensor([20, 20, 22, 23, 10, 25, 26])
    negative = torch.arange(30, 30 + N * K)
    negative[4 * K], negative[6 * K + 1] = 25, 26
    columns.meta = {"query_hash": query, "positive_hash": positive, "negative_hash": negative}
    texts = torch.cat([positive, negative]).tolist()

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        index = [j for j in range(N + N * K) if j != i]
        false = {int(query[i]), int(positive[i])}
        kept = [
            x / T
            for j, x in zip(index, others, strict=True)
            if texts[j] not in false and not (j < N and query[j] == query[i])
        ]
        return softmax_loss(s / T, kept)

    expected = rows(loss, columns)
    check(
        InfoNCE(temperature=T, masks=(DuplicateMask(),))(columns).total, expected, leaves(columns)
    )


def test_duplicates_among_queries_and_documents_as_rows() -> None:
    columns = batch(0)
    query = torch.tensor([1, 1, 2, 3, 4, 5, 6])
    positive = torch.tensor([11, 12, 13, 13, 14, 15, 16])
    columns.meta = {"query_hash": query, "positive_hash": positive}
    q, p = units(columns)
    found = []
    for i in range(N):
        other = [j for j in range(N) if query[j] != query[i] and positive[j] != positive[i]]
        s = q[i] @ p[i]
        terms = [q[i] @ p[j] for j in other] + [q[i] @ q[j] for j in other]
        terms += [p[i] @ q[j] for j in other] + [p[i] @ p[j] for j in other]
        found.append(softmax_loss(s / T, [t / T for t in terms]))
    loss = InfoNCE(temperature=T, directions=("q2d", "q2q", "d2q", "d2d"), masks=(DuplicateMask(),))
    check(loss(columns).total, torch.stack(found).mean(), leaves(columns))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_modality_mask(weight: float) -> None:
    columns = batch()
    positive = torch.tensor([1, 2, 1, 4, 3, 2, 1])
    negative = torch.tensor([1, 2]).repeat(N)
    columns.meta = {"modality": positive, "negative_modality": negative}
    modality = torch.cat([positive, negative])

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        index = [j for j in range(N + N * K) if j != i]
        terms = []
        for j, x in zip(index, others, strict=True):
            if modality[j] == positive[i]:
                terms.append(x / T)
            elif weight:
                terms.append(x / T + math.log(weight))
        return softmax_loss(s / T, terms)

    mask = ModalityMask(weight)
    check(
        InfoNCE(temperature=T, masks=(mask,))(columns).total, rows(loss, columns), leaves(columns)
    )


def test_masks_compose() -> None:
    columns = batch()
    modality = torch.tensor([1, 2, 1, 1, 2, 2, 1])
    columns.meta = {"modality": modality, "negative_modality": modality.repeat_interleave(K)}

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        of = torch.cat([modality, modality.repeat_interleave(K)])
        index = [j for j in range(N + N * K) if j != i]
        kept = [
            x / T
            for j, x in zip(index, others, strict=True)
            if of[j] == modality[i] and x <= s + 0.1
        ]
        return softmax_loss(s / T, kept)

    both = InfoNCE(temperature=T, masks=(ThresholdMask(0.1), ModalityMask()))
    check(both(columns).total, rows(loss, columns), leaves(columns))


def test_codesage_weights() -> None:
    columns = batch()

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        negatives = torch.stack(others) / T
        gamma = negatives.detach().softmax(0)
        return ((s / T).exp() + (gamma * negatives.exp()).sum()).log() - s / T

    ours = InfoNCE(temperature=T, weights=CodeSageWeights())
    check(ours(columns).total, rows(loss, columns), leaves(columns))


def test_llave_weighs_rows_and_columns() -> None:
    columns = batch(0)
    q, p = units(columns)
    s = q @ p.T
    logits = s / T + 9 * s.detach() * (1 - torch.eye(N))
    labels = torch.arange(N)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    ours = InfoNCE(
        temperature=T, directions=("q2d", "d2q"), partition="direction", weights=Hardness(9.0)
    )
    check(ours(columns).total, expected, leaves(columns))


def test_hardest_negatives_only() -> None:
    columns = batch()

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        kept = sorted((x for x in others if x <= s + 0.1), key=float, reverse=True)[:3]
        return softmax_loss(s / T, [x / T for x in kept])

    unime = InfoNCE(temperature=T, masks=(ThresholdMask(0.1),), hardest=3)
    check(unime(columns).total, rows(loss, columns), leaves(columns))


def test_nt_xent_by_sides() -> None:
    columns = batch(0)
    z = torch.cat(units(columns))
    s = (z @ z.T / T).masked_fill(torch.eye(2 * N, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(s, torch.arange(2 * N).roll(N))
    ours = InfoNCE(temperature=T, directions=("q2d", "q2q", "d2q", "d2d"), partition="side")
    check(ours(columns).total, expected, leaves(columns))


def test_hinge_over_in_batch_negatives() -> None:
    columns = batch()
    expected = rows(lambda i, s, o: torch.stack([F.relu(0.2 - s + x) for x in o]).mean(), columns)
    check(RankingHinge(margin=0.2)(columns).total, expected, leaves(columns))


def test_hardest_softplus() -> None:
    columns = batch()
    expected = rows(lambda i, s, o: F.softplus((torch.stack(o).max() - s) / T), columns)
    check(HardestSoftplus(temperature=T)(columns).total, expected, leaves(columns))


def test_siglip() -> None:
    columns = batch(0)
    q, p = units(columns)
    start = learned_parameters(Sigmoid(), D)
    assert set(start) == {"log_scale", "bias"}
    t, b = (v.detach().double().requires_grad_() for v in start.values())
    columns.shared = {"log_scale": t, "bias": b}
    z = 2 * torch.eye(N, dtype=torch.float64) - 1
    expected = -F.logsigmoid(z * (t.exp() * q @ p.T + b)).sum() / N
    ours = Sigmoid()(columns).total
    torch.testing.assert_close(
        torch.autograd.grad(ours, [t, b], retain_graph=True),
        torch.autograd.grad(expected, [t, b], retain_graph=True),
    )
    check(ours, expected, leaves(columns))


def test_the_scale_of_siglip_has_no_limit() -> None:
    columns = batch(0)
    q, p = units(columns)
    t, b = torch.tensor(117.3).log(), torch.tensor(-12.9)
    columns.shared = {"log_scale": t, "bias": b}
    z = 2 * torch.eye(N, dtype=torch.float64) - 1
    expected = -F.logsigmoid(z * (t.double().exp() * q @ p.T + b)).sum() / N
    torch.testing.assert_close(Sigmoid()(columns).total.double(), expected)


def test_own_negatives_only() -> None:
    columns = batch()
    q, p, n = units(columns)
    own = torch.cat(
        [(q * p).sum(1, keepdim=True), torch.einsum("nd,nkd->nk", q, n.view(N, K, D))], 1
    )
    expected = F.cross_entropy(own / T, torch.zeros(N, dtype=torch.int64))
    check(InfoNCE(temperature=T, in_batch=False)(columns).total, expected, leaves(columns))
    hinge = F.relu(own[:, 1:] - own[:, :1] + 0.2).mean()
    check(RankingHinge(margin=0.2, in_batch=False)(columns).total, hinge, leaves(columns))
    shared = torch.cat([q @ p.T, own[:, 1:]], 1) / T
    ours = InfoNCE(temperature=T, hard_negatives="own")(columns).total
    check(ours, F.cross_entropy(shared, torch.arange(N)), leaves(columns))


def test_queue_is_extra_columns_without_gradient() -> None:
    columns = batch(0)
    queue = F.normalize(torch.randn(4, D, dtype=torch.float64), dim=1).requires_grad_()
    columns.shared = {"queue": queue}
    q, p = units(columns)
    expected = F.cross_entropy(q @ torch.cat([p, queue.detach()]).T / T, torch.arange(N))
    ours = InfoNCE(temperature=T)(columns).total
    check(ours, expected, leaves(columns))
    assert (
        torch.autograd.grad(InfoNCE(temperature=T)(columns).total, queue, allow_unused=True)[0]
        is None
    )
    columns.meta = {"query_hash": torch.arange(N), "positive_hash": torch.arange(N) + 50}
    columns.shared = {"queue": queue, "queue_hash": torch.tensor([50, 99, 98, 97])}
    logits = q @ torch.cat([p, queue.detach()]).T / T
    logits = logits.index_put((torch.tensor(0), torch.tensor(N)), torch.tensor(-torch.inf).double())
    masked = InfoNCE(temperature=T, masks=(DuplicateMask(),))(columns).total
    check(masked, F.cross_entropy(logits, torch.arange(N)), leaves(columns))


def test_focal_reweighs_without_gradient() -> None:
    columns = batch()

    def loss(i: int, s: Tensor, others: list[Tensor]) -> Tensor:
        nll = softmax_loss(s / T, [x / T for x in others])
        return nll * (1 - (-nll.detach()).exp()) ** 2

    check(InfoNCE(temperature=T, focal=2.0)(columns).total, rows(loss, columns), leaves(columns))


def test_learned_temperature_is_clamped_and_can_return() -> None:
    columns = batch(0)
    scale = torch.tensor(math.log(500.0), dtype=torch.float64, requires_grad=True)
    columns.shared = {"log_scale": scale}
    ours = InfoNCE(learn_temperature=True, max_scale=100.0)(columns).total
    check(ours, InfoNCE(temperature=0.01)(columns).total, leaves(columns))
    (grad,) = torch.autograd.grad(InfoNCE(learn_temperature=True)(columns).total, scale)
    assert grad != 0
    start = learned_parameters(InfoNCE(learn_temperature=True, temperature=0.07), D)
    assert start["log_scale"].item() == pytest.approx(math.log(1 / 0.07))
    assert not learned_parameters(InfoNCE(), D)


def test_a_row_whose_negatives_are_all_dropped_costs_nothing() -> None:
    columns = batch()
    columns.meta = {"modality": torch.arange(N), "negative_modality": torch.full((N * K,), 99)}
    loss = InfoNCE(temperature=T, masks=(ModalityMask(),), weights=CodeSageWeights())
    total = loss(columns).total
    assert total.item() == 0
    total.backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves(columns))


def test_half_precision_vectors_are_scored_in_float32() -> None:
    half = [x.detach().bfloat16() for x in leaves(batch(0))]
    total = InfoNCE(temperature=0.01)(Columns(*(Outputs(dense=x) for x in half))).total
    exact = InfoNCE(temperature=0.01)(Columns(*(Outputs(dense=x.float()) for x in half))).total
    assert total.dtype == torch.float32
    assert torch.equal(total, exact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "positive"),
        ({"directions": ("d2q",)}, "q2d"),
        ({"directions": ("q2d", "q2q"), "partition": "direction"}, "side"),
        ({"directions": ("q2d", "d2d"), "partition": "side"}, "d2q"),
        ({"in_batch": False, "directions": ("q2d", "d2q")}, "only direction"),
        ({"in_batch": False, "masks": (ThresholdMask(),)}, "in_batch is off"),
        ({"hardest": 0}, "hardest"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InfoNCE(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (InfoNCE(masks=(DuplicateMask(),)), "content hashes"),
        (InfoNCE(masks=(GuideMask(),)), "guide vectors"),
        (InfoNCE(masks=(ModalityMask(),)), "modality"),
        (InfoNCE(score="sparse"), "sparse"),
        (InfoNCE(score="maxsim"), "multi"),
        (InfoNCE(learn_temperature=True), "log_scale"),
    ],
)
def test_missing_inputs_are_named(loss: InfoNCE, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss(batch())


def test_no_positive_is_an_error() -> None:
    columns = batch()
    columns.positive = None
    with pytest.raises(ConfigError, match="positive"):
        InfoNCE()(columns)


def test_scores_are_not_rounded_under_autocast() -> None:
    columns = Columns(*(Outputs(dense=x.detach().float()) for x in leaves(batch(0))))
    loss = InfoNCE(temperature=0.01)
    plain = loss(columns).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(columns).total, plain)
        assert torch.equal(loss.over_prefixes(columns, (D,), (1.0,)).total, plain)

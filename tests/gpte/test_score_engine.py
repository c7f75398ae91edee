"""The tiled form equals the whole one, whatever is done to the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte import score_engine
from mmembed.gpte.objectives import (
    CodeSageWeights,
    DuplicateMask,
    GuideMask,
    HardestSoftplus,
    Hardness,
    InfoNCE,
    Matryoshka,
    ModalityMask,
    RankingHinge,
    Sigmoid,
    ThresholdMask,
    fused,
)
from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.score_engine import Block, Prefixes, score_loss

N, D = 9, 12


def batch(k: int, queue: bool) -> tuple[Columns, list[Tensor]]:
    g = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    leaves = [draw(N, D).requires_grad_(), draw(N, D).requires_grad_()]
    leaves += [draw(N * k, D).requires_grad_()] if k else []
    outputs = [Outputs(dense=leaf) for leaf in leaves]
    modality = torch.randint(1, 3, (N,), generator=g)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    shared = {"log_scale": scale, "bias": bias}
    if queue:
        shared["queue"] = F.normalize(draw(4, D), dim=1)
        shared["queue_hash"] = torch.tensor([3, 103, 900, 901])
    columns = Columns(
        *outputs,
        negatives_per_query=k,
        meta={
            "query_hash": torch.randint(0, 6, (N,), generator=g),
            "positive_hash": torch.randint(100, 106, (N,), generator=g),
            "negative_hash": torch.randint(100, 120, (N * k,), generator=g),
            "modality": modality,
            "negative_modality": torch.randint(1, 3, (N * k,), generator=g),
        },
        guide={
            name: Outputs(dense=draw(len(leaf), 3))
            for name, leaf in zip(("query", "positive", "negative"), leaves, strict=False)
        },
        shared=shared,
    )
    return columns, [*leaves, scale, bias]


def run(objective: Any, columns: Columns, leaves: Sequence[Tensor], tile: int | None) -> Any:
    """The loss, its parts and its gradients, by tiles of this many rows (None: whole)."""
    original = score_engine.score_loss

    def forced(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs, tile_rows=N if tile is None else tile)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmembed.gpte.objectives.contrastive.score_loss", forced)
        loss = objective(columns)
    # An outer factor, as gradient accumulation has.
    grads = torch.autograd.grad(0.5 * loss.total, leaves, allow_unused=True)
    return loss, grads


def assert_same(objective: Any, k: int, queue: bool, tile: int) -> None:
    columns, leaves = batch(k, queue)
    whole, expected = run(objective, columns, leaves, None)
    tiled, grads = run(objective, columns, leaves, tile)
    torch.testing.assert_close(tiled.total, whole.total, rtol=1e-10, atol=1e-12)
    assert tiled.parts.keys() == whole.parts.keys()
    for name, part in whole.parts.items():
        torch.testing.assert_close(tiled.parts[name], part, rtol=1e-10, atol=1e-12)
    for a, b in zip(grads, expected, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


MASKS = (
    ThresholdMask(0.1),
    ThresholdMask(-0.05, relative=True),
    DuplicateMask(),
    GuideMask(0.05),
    ModalityMask(),
    ModalityMask(0.3),
)


@settings(max_examples=60, deadline=None)
@given(
    loss=st.sampled_from([InfoNCE, RankingHinge, HardestSoftplus, Sigmoid]),
    directions=st.sampled_from(
        [("q2d",), ("q2d", "d2q"), ("q2d", "q2q"), ("q2d", "q2q", "d2q", "d2d")]
    ),
    partition=st.sampled_from(["joint", "side", "direction"]),
    masks=st.lists(st.sampled_from(MASKS), max_size=3, unique=True).map(tuple),
    weights=st.sampled_from(
        [None, Hardness(4.0), Hardness(4.0, on="hard"), Hardness(4.0, on="all"), CodeSageWeights()]
    ),
    margin=st.sampled_from([0.0, 0.15]),
    learn=st.booleans(),
    hardest=st.sampled_from([None, 2]),
    own=st.booleans(),
    dims=st.sampled_from([(), (12,), (3, 12), (2, 5, 8)]),
    k=st.integers(0, 2),
    queue=st.booleans(),
    tile=st.integers(1, N - 1),
)
def test_tiles_equal_the_whole(
    loss: type[Contrastive],
    directions: Any,
    partition: Any,
    masks: Any,
    weights: Any,
    margin: float,
    learn: bool,
    hardest: int | None,
    own: bool,
    dims: tuple[int, ...],
    k: int,
    queue: bool,
    tile: int,
) -> None:
    if partition == "direction" and "q2q" in directions:
        partition = "side"
    objective: Any = loss(
        temperature=0.1,
        learn_temperature=learn,
        directions=directions,
        partition=partition,
        margin=margin,
        masks=masks,
        weights=weights,
        hardest=hardest,
        hard_negatives="own" if own else "all",
    )
    if dims:
        objective = Matryoshka(objective, dims, tuple(1.0 / (1 + i) for i in range(len(dims))))
    assert_same(objective, k, queue, tile)


def _nll(scores: Sequence[Tensor], rows: slice, _: Sequence[Tensor]) -> Tensor:
    own = torch.arange(rows.start, rows.stop)[:, None]
    return (scores[0] * 20).logsumexp(1) - 20 * scores[0].gather(1, own)[:, 0]


def test_one_pass_over_prefixes_equals_separate_losses_on_cut_vectors() -> None:
    torch.manual_seed(0)
    q, d = (torch.randn(N, D, dtype=torch.float64, requires_grad=True) for _ in range(2))
    dims, weights = (4, 7, 12), (0.5, 1.0, 2.0)
    total, parts = score_loss(_nll, [Block(q, d)], (), Prefixes(dims, weights), tile_rows=4)
    separate = [
        F.cross_entropy(
            20 * F.normalize(q[:, :k], dim=1) @ F.normalize(d[:, :k], dim=1).T,
            torch.arange(N),
            reduction="sum",
        )
        for k in dims
    ]
    torch.testing.assert_close(parts, torch.stack(separate).detach())
    expected = sum(w * s for w, s in zip(weights, separate, strict=True))
    torch.testing.assert_close(total, expected)
    mine = torch.autograd.grad(total, [q, d])
    theirs = torch.autograd.grad(expected, [q, d])
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_constants_get_no_gradient_and_rows_may_be_absent() -> None:
    q = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(N, D, dtype=torch.float64)
    total, _ = score_loss(_nll, [Block(q, fixed)], tile_rows=2)
    total.backward()
    assert q.grad is not None
    assert fixed.grad is None
    empty = torch.zeros(0, D, dtype=torch.float64, requires_grad=True)
    total, _ = score_loss(_nll, [Block(empty, fixed)])
    total.backward()
    assert total.item() == 0
    assert empty.grad is not None


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    q, d = (torch.randn(N, D, dtype=torch.float64, requires_grad=True) for _ in range(2))
    total, _ = score_loss(_nll, [Block(q, d)], tile_rows=2)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()


def test_large_matrices_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(scores: Sequence[Tensor], rows: slice, learned: Sequence[Tensor]) -> Tensor:
        seen.append(scores[0].numel())
        return _nll(scores, rows, learned)

    monkeypatch.setattr(score_engine, "_WHOLE_BYTES", 1 << 16)
    monkeypatch.setattr(score_engine, "_TILE_BYTES", 1 << 14)
    q, d = (F.normalize(torch.randn(300, 8), dim=1).requires_grad_() for _ in range(2))
    total, _ = score_loss(spy, [Block(q, d)])
    total.backward()
    assert sum(seen) == 300 * 300
    assert max(seen) == score_engine._TILE_ROWS * 300 < 300 * 300 // 4


def test_kernels_run_where_they_are_asked_for_and_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "_has_triton", lambda: True)
    monkeypatch.delenv("MMEMBED_TRITON", raising=False)
    assert not fused.kernels_run(torch.device("cuda"))
    monkeypatch.setenv("MMEMBED_TRITON", "1")
    assert fused.kernels_run(torch.device("cuda"))
    assert not fused.kernels_run(torch.device("cpu"))
    monkeypatch.setattr(fused, "_has_triton", lambda: False)
    assert not fused.kernels_run(torch.device("cuda"))

"""Losses over score matrices that are never held whole.

A contrastive loss is a sum over rows, and a row's loss depends on that row's scores alone. So a
tile of rows is scored against all columns, its loss and the gradient of its scores are formed at
once, and the gradient is multiplied into the vectors before the next tile begins: memory is
``O(tile * columns)`` instead of several ``rows * columns``, and the result is exact. (Inf-CL,
Cheng et al. 2024, and fused cross-entropy kernels rest on the same fact.)

Only the chain rule through ``scores = rows @ columns.T`` is written by hand here. What happens to
the scores (masks, weights, margins, partition functions) is an ordinary differentiable function of
one tile, so the tiled and the whole form share every formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmembed.gpte.onednn import matmul_nt

__all__ = ["Block", "FusedLoss", "Prefixes", "RowLoss", "score_loss"]

# (scores of each block (r, columns), rows of the tile, learned parameters) -> (r,) losses.
RowLoss = Callable[[Sequence[Tensor], slice, Sequence[Tensor]], Tensor]
# (scores of each block, rows of the tile, learned parameters, weight) -> (r,) losses, and weight
# times the gradients of the scores and of the parameters.
FusedLoss = Callable[
    [Sequence[Tensor], slice, Sequence[Tensor], float],
    tuple[Tensor, Sequence[Tensor], Sequence[Tensor]],
]

_TILE_BYTES = 6 << 20  # of one tile's scores; about five of that size live at the same time
_TILE_ROWS = 64  # at least: products of fewer rows are bound by memory
_WHOLE_BYTES = 4 << 20  # score matrices below this are cheaper whole


@dataclass(frozen=True, slots=True)
class Block:
    """A block of scores: rows of this process against columns of all processes.

    Attributes:
        rows: ``(n, d)`` vectors; every block of a call has the same ``n``.
        columns: ``(c, d)`` vectors, without gradient where they are constants (a queue).
    """

    rows: Tensor
    columns: Tensor


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Matryoshka prefixes: the loss of cosines of the first ``d`` dimensions, for each ``d``.

    Attributes:
        dims: ascending, e.g. ``(64, 128, 256)``; dimensions beyond the last are not read.
        weights: of each prefix's loss in the sum.
    """

    dims: tuple[int, ...]
    weights: tuple[float, ...]


def score_loss(
    row_loss: RowLoss,
    blocks: Sequence[Block],
    parameters: Sequence[Tensor] = (),
    prefixes: Prefixes | None = None,
    *,
    tile_rows: int | None = None,
    fused: FusedLoss | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum a loss over the rows of score matrices.

    Args:
        row_loss: maps the scores of some rows to those rows' losses. It must treat rows apart.
        blocks: what is scored against what; scores are dot products.
        parameters: tensors that ``row_loss`` gets and whose gradients are wanted (a temperature).
        prefixes: score cosines of prefixes instead, and add the losses of all of them. Partial
            products are shared, so all prefixes cost one product of the full width.
        tile_rows: rows per tile; by default the whole matrix if it is small, else what fits a
            fixed budget.
        fused: the same loss with its gradients, for tiles, where there is a kernel for it.

    Returns:
        The weighted total, 0-d with gradient, and the ``(len(dims),)`` unweighted sums.
    """
    n = len(blocks[0].rows)
    row_bytes = sum(len(b.columns) for b in blocks) * blocks[0].rows.element_size()
    row_bytes *= len(prefixes.dims) if prefixes else 1
    if tile_rows is None:
        whole = n * row_bytes <= _WHOLE_BYTES
        tile_rows = n if whole else max(_TILE_ROWS, _TILE_BYTES // max(row_bytes, 1))
    if tile_rows >= n:
        return _whole(row_loss, blocks, parameters, prefixes)

    tensors = list(parameters)
    for block in blocks:
        tensors += [block.rows, block.columns]
        if prefixes:
            tensors += [_inverse_norms(v, prefixes.dims) for v in (block.rows, block.columns)]
    plan = _Plan(row_loss, prefixes, tile_rows, len(parameters), fused)
    total, parts = _Tiled.apply(plan, *tensors)
    return total, parts


def _inverse_norms(x: Tensor, dims: Sequence[int]) -> Tensor:
    """``(n, len(dims))`` reciprocals of the prefixes' lengths."""
    squares = x.square().cumsum(dim=1) if len(dims) > 1 else None
    cols = [
        (squares[:, d - 1] if squares is not None else x[:, :d].square().sum(1)).sqrt()
        for d in dims
    ]
    return torch.stack(cols, dim=1).clamp_min(1e-12).reciprocal()


def _whole(
    row_loss: RowLoss,
    blocks: Sequence[Block],
    parameters: Sequence[Tensor],
    prefixes: Prefixes | None,
) -> tuple[Tensor, Tensor]:
    """The same by plain autograd."""
    rows = slice(0, len(blocks[0].rows))
    if prefixes is None:
        total = row_loss([b.rows @ b.columns.T for b in blocks], rows, parameters).sum()
        return total, total.detach().reshape(1)
    sums = []
    for d in prefixes.dims:
        cut = [
            (torch.nn.functional.normalize(v[:, :d], dim=1) for v in (b.rows, b.columns))
            for b in blocks
        ]
        sums.append(row_loss([r @ c.T for r, c in cut], rows, parameters).sum())
    parts = torch.stack(sums)
    return parts @ parts.new_tensor(prefixes.weights), parts.detach()


@dataclass(frozen=True, slots=True)
class _Plan:
    row_loss: RowLoss
    prefixes: Prefixes | None
    tile_rows: int
    parameters: int
    fused: FusedLoss | None


class _Tiled(torch.autograd.Function):
    """Forms the gradients of all inputs in the forward pass; the backward only scales them."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        per_block = 4 if plan.prefixes else 2
        parameters = [p.detach() for p in tensors[: plan.parameters]]
        grads: list[Tensor | None] = [
            torch.zeros_like(t, memory_format=torch.contiguous_format) if needed else None
            for t, needed in zip(tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        width = tensors[plan.parameters].shape[1]
        dims = plan.prefixes.dims if plan.prefixes else (width,)
        blocks = [
            _TileBlock(
                [t.detach() for t in tensors[at : at + per_block]],
                grads[at : at + per_block],
                dims,
            )
            for at in range(plan.parameters, len(tensors), per_block)
        ]
        n = len(blocks[0].rows)
        weights = plan.prefixes.weights if plan.prefixes else (1.0,)
        sums = tensors[-1].new_zeros(len(dims))
        for start in range(0, n, plan.tile_rows):
            rows = slice(start, min(start + plan.tile_rows, n))
            for block in blocks:
                block.score(rows)
            for k in reversed(range(len(dims))):
                scores = [block.scores(k) for block in blocks]
                differentiate = _differentiate if plan.fused is None else _by_kernel
                loss = differentiate(
                    plan, scores, rows, parameters, weights[k], grads[: plan.parameters]
                )
                sums[k] += loss
                for block, score in zip(blocks, scores, strict=True):
                    block.accumulate(k, score)
        ctx.grads = grads
        ctx.mark_non_differentiable(sums)
        return sums @ sums.new_tensor(weights), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("a tiled loss can be differentiated once; compute it again")
        # In place: the gradients belong to this node alone, and copies would double the peak.
        grads, ctx.grads = ctx.grads, None
        return None, *(g if g is None else g.mul_(outer[0]) for g in grads)


def _differentiate(
    plan: _Plan,
    scores: list[Tensor],
    rows: slice,
    parameters: list[Tensor],
    weight: float,
    parameter_grads: list[Tensor | None],
) -> Tensor:
    """The tile's loss; each score tensor is left with ``.grad``, parameters' gradients added up."""
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in parameters]
        for score in scores:
            score.requires_grad_()
        loss = plan.row_loss(scores, rows, leaves).sum()
        found = torch.autograd.grad(weight * loss, [*scores, *leaves], allow_unused=True)
    for score, grad in zip(scores, found, strict=False):
        score.requires_grad_(False)
        score.grad = grad
    for into, grad in zip(parameter_grads, found[len(scores) :], strict=True):
        if into is not None and grad is not None:
            into += grad
    return loss.detach()


def _by_kernel(
    plan: _Plan,
    scores: list[Tensor],
    rows: slice,
    parameters: list[Tensor],
    weight: float,
    parameter_grads: list[Tensor | None],
) -> Tensor:
    """As :func:`_differentiate`, by the fused loss."""
    assert plan.fused is not None
    losses, of_scores, of_parameters = plan.fused(scores, rows, parameters, weight)
    for score, grad in zip(scores, of_scores, strict=True):
        score.grad = grad
    for into, grad in zip(parameter_grads, of_parameters, strict=True):
        if into is not None:
            into += grad
    return losses.sum()


class _TileBlock:
    """One block's scores for the current rows, and where their gradients go."""

    def __init__(
        self, tensors: list[Tensor], grads: list[Tensor | None], dims: Sequence[int]
    ) -> None:
        self.rows = tensors[0]
        self.cuts = [slice(low, high) for low, high in pairwise((0, *dims))]
        # In pieces of their own: every tile multiplies them, and gaps between rows cost time.
        self.columns = [tensors[1][:, cut].contiguous() for cut in self.cuts]
        self.grad_rows, self.grad_columns = grads[:2]
        # Reciprocal lengths of the prefixes, where prefixes are scored.
        self.inverse = tensors[2:]
        self.grad_inverse = grads[2:]

    def score(self, rows: slice) -> None:
        """Partial products of the tile up to each prefix, by adding slices of dimensions."""
        self.slice = rows
        self.products: list[Tensor] = []
        for cut, columns in zip(self.cuts, self.columns, strict=True):
            part = matmul_nt(self.rows[rows, cut], columns)
            self.products.append(part.add_(self.products[-1]) if self.products else part)
        self.upstream: Tensor | None = None

    def scores(self, k: int) -> Tensor:
        """Dot products, or the cosines of prefix ``k``."""
        if not self.inverse:
            return self.products[k]
        of_rows, of_columns = self.inverse
        return self.products[k] * of_rows[self.slice, k, None] * of_columns[:, k]

    def accumulate(self, k: int, score: Tensor) -> None:
        """Carry the gradient of prefix ``k``'s scores to the vectors; ``k`` runs downwards."""
        grad, score.grad = score.grad, None
        if grad is None:
            return
        if self.inverse:
            of_rows, of_columns = self.inverse
            weighted = grad * score  # d loss / d log(scale of a row or of a column)
            if self.grad_inverse[0] is not None:
                self.grad_inverse[0][self.slice, k] += weighted.sum(1) / of_rows[self.slice, k]
            if self.grad_inverse[1] is not None:
                self.grad_inverse[1][:, k] += weighted.sum(0) / of_columns[:, k]
            grad = grad.mul_(of_rows[self.slice, k, None]).mul_(of_columns[:, k])
            grad = grad if self.upstream is None else grad.add_(self.upstream)
            self.upstream = grad
        cut = self.cuts[k]
        if self.grad_rows is not None:
            self.grad_rows[self.slice, cut] += matmul_nt(grad, self.columns[k].T)
        if self.grad_columns is not None:
            rows = self.rows[self.slice, cut].contiguous().T
            step = 1024  # columns at a time: the products need no second copy of the gradient
            for at in range(0, len(self.columns[k]), step):
                into = self.grad_columns[at : at + step, cut]
                into += matmul_nt(grad[:, at : at + step].T, rows)

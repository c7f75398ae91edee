"""Triton kernels of the score engine, for CUDA; imported only where they run.

A tile of scores is read twice and its gradient written once, where autograd reads and writes the
tile for the scale, the mask, the softmax and each of their gradients. TRITON_INTERPRET=1 runs the
kernels on a CPU, which is how they are tested; they have not been timed on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["ScoredBlock", "cross_entropy_tile"]

_BLOCK = 1024

# What a row's own column is in a block.
_PLAIN, _TARGET, _ABSENT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """The scores of one block, for the rows of a tile.

    Attributes:
        scores: ``(r, c)`` contiguous, before the scale.
        dropped: ``(r, c)`` bool, True where a column does not compete; or None.
        own: ``(r,)`` int64, the row's own column.
        target: that column is the row's positive.
        absent: that column does not compete.
    """

    scores: Tensor
    dropped: Tensor | None
    own: Tensor
    target: bool = False
    absent: bool = False

    @property
    def role(self) -> int:
        """What a row's own column is, for the kernels."""
        return _TARGET if self.target else _ABSENT if self.absent else _PLAIN


# Untyped, as Triton reads the bodies itself.
# fmt: off
@triton.jit
def _logits(  # type: ignore[no-untyped-def]
    scores, dropped, row, columns, at, own, scale, masked: tl.constexpr, role: tl.constexpr
):
    inside = at < columns
    score = tl.load(scores + row * columns + at, mask=inside, other=0.0)
    logit = tl.where(inside, score * scale, -float("inf"))
    if masked:
        drop = tl.load(dropped + row * columns + at, mask=inside, other=0)
        logit = tl.where(drop != 0, -float("inf"), logit)
    if role == 2:
        logit = tl.where(at == own, -float("inf"), logit)
    return score, logit


@triton.jit
def _lse_kernel(  # type: ignore[no-untyped-def]
    scores, dropped, owns, scales, out, columns,
    block: tl.constexpr, masked: tl.constexpr, role: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    own, scale = tl.load(owns + row), tl.load(scales)
    highest = tl.full((), -float("inf"), scales.dtype.element_ty)
    total = tl.full((), 0.0, scales.dtype.element_ty)
    for start in range(0, columns, block):
        at = start + tl.arange(0, block)
        _, logit = _logits(scores, dropped, row, columns, at, own, scale, masked, role)
        peak = tl.maximum(highest, tl.max(logit, axis=0))
        safe = tl.where(peak == -float("inf"), 0.0, peak)
        total = total * tl.exp(highest - safe) + tl.sum(tl.exp(logit - safe), axis=0)
        highest = peak
    # A block may hold nothing that competes.
    lse = highest + tl.log(tl.where(total > 0.0, total, 1.0))
    tl.store(out + row, lse)


@triton.jit
def _grad_kernel(  # type: ignore[no-untyped-def]
    scores, dropped, owns, scales, lses, grads, by_scale, weight, columns,
    block: tl.constexpr, masked: tl.constexpr, role: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    own, scale, lse = tl.load(owns + row), tl.load(scales), tl.load(lses + row)
    moved = tl.full((), 0.0, scales.dtype.element_ty)
    for start in range(0, columns, block):
        at = start + tl.arange(0, block)
        score, logit = _logits(scores, dropped, row, columns, at, own, scale, masked, role)
        share = tl.exp(logit - lse)
        if role == 1:
            share = tl.where(at == own, share - 1.0, share)
        tl.store(grads + row * columns + at, share * scale * weight, mask=at < columns)
        moved += tl.sum(share * score, axis=0)
    tl.store(by_scale + row, moved * weight)
# fmt: on


def cross_entropy_tile(
    blocks: Sequence[ScoredBlock], scale: Tensor, weight: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Cross-entropy of each row's target among the columns of all blocks, and its gradients.

    Args:
        blocks: exactly one holds the targets.
        scale: 0-d, of the scores' type; logits are ``scale * scores``.
        weight: of the gradients; not of the losses.

    Returns:
        ``(r,)`` losses, the gradient of every block's scores, and ``(r,)`` gradients of the scale.
    """
    rows = len(blocks[0].own)
    partial = []
    for block in blocks:
        lse = torch.empty_like(block.scores[:, 0])
        _lse_kernel[(rows,)](*_inputs(block, scale), lse, block.scores.shape[1], **_options(block))
        partial.append(lse)
    whole = torch.stack(partial).logsumexp(dim=0)
    grads, by_scale = [], torch.zeros_like(whole)
    target = torch.zeros_like(whole)
    for block in blocks:
        grad, moved = torch.empty_like(block.scores), torch.empty_like(whole)
        given = (*_inputs(block, scale), whole, grad, moved, weight, block.scores.shape[1])
        _grad_kernel[(rows,)](*given, **_options(block))
        grads.append(grad)
        by_scale += moved
        if block.target:
            target = block.scores.gather(1, block.own[:, None])[:, 0] * scale
    return whole - target, grads, by_scale


def _inputs(block: ScoredBlock, scale: Tensor) -> tuple[Tensor, ...]:
    dropped = block.scores if block.dropped is None else block.dropped.to(torch.uint8).contiguous()
    return block.scores, dropped, block.own, scale


def _options(block: ScoredBlock) -> dict[str, int | bool]:
    return {"block": _BLOCK, "masked": block.dropped is not None, "role": block.role}

"""Plain InfoNCE by the score engine's kernels, where they run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmembed.gpte.score_engine import FusedLoss

if TYPE_CHECKING:
    from mmembed.gpte.objectives.contrastive import Table

__all__ = ["fused_loss", "kernels_run"]


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def kernels_run(device: torch.device) -> bool:
    """Whether Triton's kernels run on a device: with ``MMEMBED_TRITON=1``, on a GPU.

    They have to be asked for until a card is found on which they beat PyTorch's tiles.
    """
    wanted = os.environ.get("MMEMBED_TRITON", "0") == "1"
    return wanted and device.type == "cuda" and _has_triton()


def fused_loss(table: Table, device: torch.device) -> FusedLoss | None:
    """A loss's tiles by kernel; None where there is no kernel for it, or none for the device."""
    if not table.loss.fusible or not kernels_run(device):
        return None
    from mmembed.gpte.kernels import ScoredBlock, cross_entropy_tile

    def run(
        scores: Sequence[Tensor], rows: slice, learned: Sequence[Tensor], weight: float
    ) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
        start = table.candidates.shard.start
        own = torch.arange(start + rows.start, start + rows.stop, device=scores[0].device)[:, None]
        positive = scores[0].gather(1, own)[:, 0]
        named = dict(zip(table.learned, learned, strict=True))
        scale = torch.as_tensor(table.loss.scale(named)).to(scores[0])
        share = weight / len(table.groups)
        losses = []
        grads: list[Tensor] = [scores[0]] * len(scores)
        by_scale = torch.zeros_like(scale)
        for group in table.groups:
            blocks = []
            for block in group:
                drop = table.dropped(block, group, scores[block], rows, own, positive)
                of_own = table.own_columns(block, own)
                lacks = table.lacks_own(block, group)
                if lacks and table.blocks[block][1] == "negative":  # several columns a row
                    drop = (
                        torch.zeros_like(scores[block], dtype=torch.bool) if drop is None else drop
                    )
                    drop, lacks = drop.scatter(1, of_own, True), False
                target = block == group[0]
                values = scores[block].contiguous()
                blocks.append(ScoredBlock(values, drop, own[:, 0], target, absent=lacks))
            found, of_scores, of_scale = cross_entropy_tile(blocks, scale, share)
            losses.append(found)
            by_scale = by_scale + of_scale.sum()
            for block, grad in zip(group, of_scores, strict=True):
                grads[block] = grad
        # The one parameter of the plain loss is the scale's logarithm.
        return torch.stack(losses).mean(dim=0), grads, [by_scale * scale] * len(learned)

    return run

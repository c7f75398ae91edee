"""Regularisers that keep lexical vectors sparse. Their scores are ``InfoNCE(score="sparse")``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import Shard, global_sum, shard_of
from mmembed.gpte.objectives.base import full_precision, loss_of, shared
from mmembed.gpte.objectives.candidates import head_of
from mmembed.gpte.protocols import Columns, Loss, Outputs

__all__ = ["SparsityPenalty", "flops", "l1", "ramp"]


def flops(weights: Tensor, shard: Shard) -> Tensor:
    """``sum_j (mean_i |w_ij|)^2``: expected products of a search (Paria et al. 2020).

    The square is taken of the mean over all processes' rows, which is not a mean of squares.

    Args:
        weights: ``(n, vocab)`` local rows.
    """
    return (global_sum(weights.abs().sum(dim=0)) / max(shard.total, 1)).square().sum()


def l1(weights: Tensor, shard: Shard) -> Tensor:
    """``mean_i sum_j |w_ij|``."""
    return shard.mean(weights.abs().sum(dim=1))


def ramp(step: int, steps: int) -> float:
    """``min(1, step / steps)^2``, the usual growth of the penalty; 1 if ``steps`` is 0."""
    return 1.0 if steps <= 0 else min(1.0, step / steps) ** 2


@dataclass(frozen=True)
class SparsityPenalty:
    """``lambda_q(t) R(queries) + lambda_d(t) R(documents)`` of SPLADE (Formal et al. 2021).

    Documents are positives and hard negatives together.

    Attributes:
        query_weight, document_weight: the lambdas after the ramp.
        query, document: the regulariser of each side.
        ramp_steps: steps over which the lambdas grow quadratically from zero, by
            ``Columns.shared["step"]``; 0 for none.
    """

    query_weight: float = 5e-4
    document_weight: float = 3e-4
    query: Literal["flops", "l1"] = "flops"
    document: Literal["flops", "l1"] = "flops"
    ramp_steps: int = 0

    name: ClassVar[str] = "sparsity"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The sum of both sides; parts are before their weights."""
        documents = [side for side in (columns.positive, columns.negative) if side is not None]
        if not documents:
            raise ConfigError("the sparsity penalty needs documents")
        query = _penalty(self.query, [columns.query])
        document = _penalty(self.document, documents)
        growth = 1.0
        if self.ramp_steps:
            growth = ramp(int(shared(columns, "step", "a ramped penalty")), self.ramp_steps)
        total = growth * (self.query_weight * query + self.document_weight * document)
        parts = {f"query_{self.query}": query, f"document_{self.document}": document}
        return loss_of(self.name, total, {f"{self.name}/{k}": v for k, v in parts.items()})


def _penalty(kind: str, sides: list[Outputs]) -> Tensor:
    weights = torch.cat([head_of(side, "sparse") for side in sides])
    shard = shard_of(len(weights), weights.device)
    return flops(weights, shard) if kind == "flops" else l1(weights, shard)

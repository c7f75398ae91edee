"""The triplet loss and a regulariser that spreads vectors over the sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, positive_of, unit
from mmembed.gpte.protocols import Columns, Loss, Outputs

__all__ = ["SpreadOut", "Triplet"]


@dataclass(frozen=True)
class Triplet:
    """``max(0, margin + d(q, p) - d(q, n))`` over own triplets (Schroff et al. 2015)."""

    margin: float = 5.0
    distance: Literal["euclidean", "manhattan", "cosine"] = "euclidean"

    name: ClassVar[str] = "triplet"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' (query, negative) pairs."""
        k = columns.negatives_per_query
        if columns.negative is None or not k:
            raise ConfigError("the triplet loss needs a hard negative for every query")
        query = dense_of(columns.query)
        near = self._distance(query, dense_of(positive_of(columns))).repeat_interleave(k)
        far = self._distance(query.repeat_interleave(k, dim=0), dense_of(columns.negative))
        losses = F.relu(near - far + self.margin)
        return loss_of(self.name, shard_of(len(losses), losses.device).mean(losses))

    def _distance(self, left: Tensor, right: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 1 - (unit(left) * unit(right)).sum(dim=1)
        order = 2 if self.distance == "euclidean" else 1
        return torch.linalg.vector_norm(left - right, ord=order, dim=1)


@dataclass(frozen=True)
class SpreadOut:
    """Global orthogonal regularisation (Zhang et al. 2017), as in EmbeddingGemma.

    ``mean_weight * M1^2 + second_weight * max(0, M2 - 1/d)`` with the first two moments ``M1`` and
    ``M2`` of the cosines of different rows of a column; the mean over query and positive columns.
    """

    mean_weight: float = 1.0
    second_weight: float = 1.0

    name: ClassVar[str] = "spread"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """Over the rows of all processes."""
        sides = [self._side(side) for side in (columns.query, positive_of(columns))]
        return loss_of(self.name, torch.stack(sides).mean())

    def _side(self, outputs: Outputs) -> Tensor:
        local = dense_of(outputs)
        shard = shard_of(len(local), local.device)
        vectors = unit(gather(local, shard))
        n, d = vectors.shape
        if n < 2:
            raise ConfigError("spreading out needs two rows at least")
        # The sums over pairs need no n x n matrix: |sum x|^2 and |X^T X|^2 hold them.
        pairs = n * (n - 1)
        first = (vectors.sum(dim=0).square().sum() - vectors.square().sum()) / pairs
        norms = vectors.square().sum(dim=1)
        second = ((vectors.T @ vectors).square().sum() - norms.square().sum()) / pairs
        return self.mean_weight * first.square() + self.second_weight * F.relu(second - 1 / d)

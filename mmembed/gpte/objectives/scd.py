"""Self-contrastive decorrelation (SCD, Klein and Nabi 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import (
    dense_of,
    full_precision,
    loss_of,
    positive_of,
    shared,
    unit,
    wide,
)
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["SCD", "cross_correlation"]


def cross_correlation(left: Tensor, right: Tensor) -> Tensor:
    """``(d, d)`` correlations of dimensions over the batch (Barlow Twins, Zbontar et al. 2021).

    Args:
        left, right: ``(n, d)``; every dimension is standardised over the rows.
    """
    a = F.batch_norm(left, None, None, training=True)
    b = F.batch_norm(right, None, None, training=True)
    return a.T @ b / len(left)


@dataclass(frozen=True)
class SCD:
    """``alpha mean_i cos(z1_i, z2_i) + beta (sum_i (c_ii - 1)^2 + lam sum_i!=j c_ij^2)``.

    Query and positive are two views of a sentence under different dropout. Their cosine is
    *minimised*, while the correlation ``c`` of their projections keeps dimensions apart and alike.
    The projector (three linear layers with batch normalisation between them) belongs to the
    objective and sees the whole batch, so a gradient cache stays exact.

    Attributes:
        projector: its width; 0 correlates the vectors themselves.
    """

    alpha: float = 1.0
    beta: float = 0.005225
    lam: float = 0.012
    projector: int = 4096

    name: ClassVar[str] = "scd"

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The projector's weights."""
        if not self.projector:
            return {}
        found: dict[str, Tensor] = {}
        for layer, inputs in enumerate((width, self.projector, self.projector)):
            weight = torch.empty(self.projector, inputs)
            torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
            found[f"projector_{layer}"] = weight
            if layer < 2:
                found[f"norm_{layer}_scale"] = torch.ones(self.projector)
                found[f"norm_{layer}_shift"] = torch.zeros(self.projector)
        return found

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """Over the rows of all processes at once."""
        local = dense_of(columns.query)
        shard = shard_of(len(local), local.device)
        first = gather(local, shard)
        second = gather(dense_of(positive_of(columns)), shard)
        attraction = (unit(first) * unit(second)).sum(dim=1).mean()
        c = cross_correlation(self._project(first, columns), self._project(second, columns))
        on = (c.diagonal() - 1).square().sum()
        off = c.square().sum() - c.diagonal().square().sum()
        total = self.alpha * attraction + self.beta * (on + self.lam * off)
        parts = {"cosine": attraction, "on_diagonal": on, "off_diagonal": off}
        return loss_of(self.name, total, {f"{self.name}/{k}": v for k, v in parts.items()})

    def _project(self, x: Tensor, columns: Columns) -> Tensor:
        if not self.projector:
            return x

        def learned(name: str) -> Tensor:
            return wide(shared(columns, name, "the SCD projector"))

        for layer in range(2):
            x = F.batch_norm(
                F.linear(x, learned(f"projector_{layer}")),
                None,
                None,
                learned(f"norm_{layer}_scale"),
                learned(f"norm_{layer}_shift"),
                training=True,
            ).relu()
        return F.linear(x, learned("projector_2"))

"""Matryoshka representation learning: a loss on every prefix of the vectors (Kusupati 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import Learnable, dense_of, loss_of
from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.protocols import QUEUES, Columns, Loss, Objective, Outputs

__all__ = ["Matryoshka"]


@dataclass(frozen=True)
class Matryoshka:
    """``sum_k w_k L(e[:d_k])``. Vectors are cut first and normalised after.

    Guides keep their full width; a queue's keys are cut with the vectors.

    Attributes:
        objective: the loss; contrastive losses of cosines score all prefixes in one pass.
        dims: the widths, in any order. Name the full width too if it is to be trained.
        weights: one a width; all 1 by default.
        reduction: ``sum`` (the paper, sentence-transformers) or ``mean`` over widths (BGE).
    """

    objective: Objective
    dims: tuple[int, ...]
    weights: tuple[float, ...] = ()
    reduction: Literal["sum", "mean"] = "sum"

    name: ClassVar[str] = "matryoshka"

    def __post_init__(self) -> None:
        if not self.dims or min(self.dims) < 1 or len(set(self.dims)) != len(self.dims):
            raise ConfigError(f"Matryoshka dims are different positive widths, not {self.dims}")
        if self.weights and len(self.weights) != len(self.dims):
            raise ConfigError(f"{len(self.dims)} Matryoshka dims have {len(self.weights)} weights")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """Those of the loss."""
        inner = self.objective
        return inner.parameters(width) if isinstance(inner, Learnable) else {}

    def __call__(self, columns: Columns) -> Loss:
        """The weighted sum, and each width's loss as a part."""
        width = dense_of(columns.query).shape[1]
        if max(self.dims) > width:
            raise ConfigError(f"Matryoshka dims {self.dims} exceed the vectors' width {width}")
        share = 1.0 if self.reduction == "sum" else 1.0 / len(self.dims)
        weights = self.weights or (1.0,) * len(self.dims)
        pairs = sorted((d, share * w) for d, w in zip(self.dims, weights, strict=True))
        if isinstance(self.objective, Contrastive) and self.objective.score == "cosine":
            return self.objective.over_prefixes(columns, *zip(*pairs, strict=True))
        losses = [(d, w, self.objective(_cut(columns, d))) for d, w in pairs]
        total = sum(w * loss.total for _, w, loss in losses)
        assert isinstance(total, Tensor)
        parts = {f"{k}@{d}": part for d, _, loss in losses for k, part in loss.parts.items()}
        return loss_of(self.name, total, parts)


def _cut(columns: Columns, dim: int) -> Columns:
    def short(outputs: Outputs | None) -> Outputs | None:
        if outputs is None or outputs.dense is None:
            return outputs
        return replace(outputs, dense=outputs.dense[:, :dim])

    query = short(columns.query)
    assert query is not None
    shared = dict(columns.shared)
    shared |= {name: shared[name][:, :dim] for name in QUEUES.values() if name in shared}
    return replace(
        columns,
        query=query,
        positive=short(columns.positive),
        negative=short(columns.negative),
        shared=shared,
    )

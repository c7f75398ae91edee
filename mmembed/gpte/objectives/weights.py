"""How much each negative counts: log-weights added to the logits of a partition function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["CodeSageWeights", "Hardness", "Logits", "Weights"]


@dataclass(frozen=True, slots=True)
class Logits:
    """The candidates of ``r`` rows in one partition function.

    Attributes:
        values: ``(r, c)`` logits, ``-inf`` where dropped.
        blocks: the scores before the temperature, detached, block by block.
        positive: ``(r,)`` int64 column of the row's positive.
        hard: ``(r, k)`` int64 columns of the row's own hard negatives, or None.
        teacher: ``(r, 1 + k)`` teacher's scores of the row's own candidates, or None.
        learned: the objective's learned parameters by name.
    """

    values: Tensor
    blocks: Sequence[Tensor]
    positive: Tensor
    hard: Tensor | None
    teacher: Tensor | None = None
    learned: Mapping[str, Tensor] = field(default_factory=dict)

    def own(self) -> Tensor:
        """``(r, 1 + k)`` int64 columns of the positive and of the own hard negatives."""
        positive = self.positive[:, None]
        return positive if self.hard is None else torch.cat([positive, self.hard], dim=1)

    def scores(self) -> Tensor:
        """``(r, c)`` scores before the temperature, detached."""
        return torch.cat(list(self.blocks), dim=1)

    def negatives(self) -> Tensor:
        """The logits with ``-inf`` at the positive."""
        return self.values.scatter(1, self.positive[:, None], -torch.inf)


class Weights(Protocol):
    """A frozen dataclass; pure, and without gradient."""

    def log_weights(self, logits: Logits) -> Tensor:
        """``(r, c)`` to add to the logits; zero at the positive."""
        ...


@dataclass(frozen=True)
class Hardness:
    """Raise negatives by their own similarity: ``logit_ij += strength * sg(s_ij)``.

    LLaVE (Lan et al. 2025, strength 9) weighs in-batch negatives, EmbeddingGemma (Schechter Vera et
    al. 2025, strength 5) only a query's own hard negatives. The term is not scaled by the
    temperature, and it applies in every direction that the loss has.
    """

    strength: float = 9.0
    on: Literal["in_batch", "hard", "all"] = "in_batch"

    def log_weights(self, logits: Logits) -> Tensor:
        """As :meth:`Weights.log_weights`."""
        extra = self.strength * logits.scores()
        if self.on == "hard":
            kept = torch.zeros_like(extra)
            return (
                kept
                if logits.hard is None
                else kept.scatter(1, logits.hard, extra.gather(1, logits.hard))
            )
        if self.on == "in_batch" and logits.hard is not None:
            extra.scatter_(1, logits.hard, 0.0)
        return extra.scatter_(1, logits.positive[:, None], 0.0)


@dataclass(frozen=True)
class CodeSageWeights:
    """Weigh each negative by its share among the negatives (CodeSage, Zhang et al. 2024).

    ``gamma_ik = exp(s_ik / t) / sum_j exp(s_ij / t)`` over the negatives ``j`` of row ``i``, so
    ``log gamma_ik = logit_ik - logsumexp_j logit_ij``; without gradient.
    """

    def log_weights(self, logits: Logits) -> Tensor:
        """As :meth:`Weights.log_weights`."""
        with torch.no_grad():
            negatives = logits.negatives()
            share = negatives.log_softmax(dim=1)
            # A row without negatives has no shares; dropped entries stay dropped by their logits.
            return torch.nan_to_num_(share, nan=0.0, neginf=0.0)

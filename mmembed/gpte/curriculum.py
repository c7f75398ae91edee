"""Negatives that get harder: CoRNStack's curriculum (Suresh et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmembed.errors import ConfigError

__all__ = ["Curriculum"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Curriculum:
    """Negatives drawn from ``softmax(score / t)`` with ``t`` falling: they get harder.

    Attributes:
        first: Temperature at the first step.
        last: Temperature at the last one.
        steps: How many steps.
    """

    first: float = 0.2
    last: float = 0.01
    steps: int = 1000

    def __post_init__(self) -> None:
        if not self.first >= self.last > 0 or self.steps < 1:
            raise ConfigError("curriculum: first >= last > 0, and steps >= 1")

    def temperature(self, step: int) -> float:
        """Geometric between the first and the last step, and constant behind it."""
        share = min(max(step, 0) / max(self.steps - 1, 1), 1.0)
        return float(self.first * (self.last / self.first) ** share)

    def probabilities(self, scores: Sequence[float] | Array, step: int) -> Array:
        """``(k,)`` chances of candidates with these scores; those at ``-inf`` have none."""
        logits = np.asarray(scores, dtype=np.float64) / self.temperature(step)
        raised = np.exp(logits - logits.max())
        return np.asarray(raised / raised.sum())

    def draw(
        self, scores: Sequence[float] | Array, k: int, step: int, seed: Sequence[int]
    ) -> list[int]:
        """``k`` positions without replacement, or all that have a chance if they are fewer."""
        scores = np.asarray(scores, dtype=np.float64)
        usable = np.flatnonzero(np.isfinite(scores))
        if len(usable) <= k:
            return [int(at) for at in usable]
        # Gumbel top-k draws without replacement, and never fails on chances that round to zero.
        noise = np.random.default_rng([*seed, step]).gumbel(size=len(usable))
        keys = scores[usable] / self.temperature(step) + noise
        return [int(usable[at]) for at in np.argsort(-keys)[:k]]

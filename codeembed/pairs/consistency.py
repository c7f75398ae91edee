"""CoRNStack's filter and curriculum (Suresh et al., 2025), over vectors of any embedder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmembed.errors import ConfigError

__all__ = ["Curriculum", "consistent", "mined_negatives", "positive_ranks"]

Array = np.ndarray[Any, np.dtype[Any]]
_ROWS = 512


def positive_ranks(queries: Array, documents: Array) -> Array:
    """``(n,)`` int64 rank, from 1, of document ``i`` for query ``i`` among all documents.

    Ties count against the positive, except those of documents with its very vector.

    Args:
        queries: ``(n, d)`` unit vectors.
        documents: ``(n, d)`` unit vectors.
    """
    _, same = np.unique(documents, axis=0, return_inverse=True)
    same = same.reshape(-1)
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(queries)))
        scores = queries[rows] @ documents.T
        own = scores[np.arange(len(rows)), rows][:, None]
        others = same[None, :] != same[rows][:, None]
        ranks[rows] = 1 + ((scores >= own) & others).sum(axis=1)
    return ranks


def consistent(queries: Array, documents: Array, *, rank: int = 2, least: float = 0.0) -> Array:
    """``(n,)`` bool: the positive is among the best ``rank`` and scores at least ``least``."""
    own = np.einsum("nd,nd->n", queries, documents)
    return np.asarray((positive_ranks(queries, documents) <= rank) & (own >= least))


def mined_negatives(
    queries: Array, documents: Array, *, count: int = 100, share: float = 0.95
) -> tuple[Array, Array]:
    """For every query the best documents that score below ``share`` of its positive.

    Those above it may be false negatives.

    Returns:
        ``(n, count)`` int64 numbers of documents, -1 where there are no more, and ``(n, count)``
        float scores, ``-inf`` there.
    """
    count = min(count, len(documents))
    numbers = np.full((len(queries), count), -1, dtype=np.int64)
    found = np.full((len(queries), count), -np.inf)
    for row, query in enumerate(queries):
        scores = documents @ query
        own = scores[row]
        limit = share * own if own > 0 else own
        allowed = np.flatnonzero(scores < limit)
        best = allowed[np.argsort(-scores[allowed], kind="stable")][:count]
        numbers[row, : len(best)] = best
        found[row, : len(best)] = scores[best]
    return numbers, found


@dataclass(frozen=True, slots=True)
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

    def draw(self, scores: Sequence[float] | Array, k: int, step: int, seed: int) -> list[int]:
        """``k`` positions without replacement, or all that have a chance if they are fewer."""
        scores = np.asarray(scores, dtype=np.float64)
        usable = np.flatnonzero(np.isfinite(scores))
        if len(usable) <= k:
            return [int(at) for at in usable]
        # Gumbel top-k draws without replacement, and never fails on chances that round to zero.
        noise = np.random.default_rng([seed, step]).gumbel(size=len(usable))
        keys = scores[usable] / self.temperature(step) + noise
        return [int(usable[at]) for at in np.argsort(-keys)[:k]]

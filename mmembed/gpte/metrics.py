"""Retrieval metrics over a matrix of scores and a matrix of relevance; and rank correlation.

Retrieval functions take ``scores (q, n)`` and ``relevant (q, n)``; higher scores rank first. Ties
are counted against the model: a relevant candidate ranks behind every irrelevant one of equal
score, so that a model of constant scores gets the worst value, not a lucky one. A query without a
relevant candidate is an error, because it has no defined value in any of these metrics.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import InputError

__all__ = [
    "average_precision",
    "bootstrap_interval",
    "exponential_gains",
    "first_ranks",
    "hit",
    "mrr",
    "ndcg",
    "recall",
    "spearman",
]

Scores: TypeAlias = "np.ndarray[Any, np.dtype[np.floating[Any]]]"
Array: TypeAlias = "np.ndarray[Any, Any]"


def first_ranks(scores: Scores, relevant: Array) -> Array:
    """``(q,)`` int64 rank, from 1, of the best ranked relevant candidate of each query."""
    hits = _checked(scores, relevant)
    best = np.where(hits, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((scores >= best) & ~hits).sum(axis=1)


def recall(scores: Scores, relevant: Array, k: int) -> Array:
    """``(q,)`` share of the relevant candidates among the first ``k``.

    With one relevant candidate a query, its mean is the hit rate of image-text retrieval.
    """
    hits = _ranked(scores, relevant)
    found = hits[:, :k].sum(axis=1)
    return np.asarray(found / hits.sum(axis=1))


def mrr(scores: Scores, relevant: Array, k: int | None = None) -> Array:
    """``(q,)`` reciprocal rank of the first relevant candidate, 0 where it lies behind ``k``."""
    ranks = first_ranks(scores, relevant)
    inside = np.ones_like(ranks, dtype=bool) if k is None else ranks <= k
    return np.where(inside, 1.0 / ranks, 0.0)


def hit(scores: Scores, relevant: Array, k: int = 1) -> Array:
    """``(q,)`` 1 where a relevant candidate is among the first ``k``, else 0."""
    return np.where(first_ranks(scores, relevant) <= k, 1.0, 0.0)


def average_precision(scores: Scores, relevant: Array, k: int | None = None) -> Array:
    """``(q,)`` average precision over the relevant candidates; its mean is MAP.

    With ``k`` only hits among the first ``k`` count, and still all relevant ones divide, as in
    trec_eval's ``map_cut``.
    """
    hits = _ranked(scores, relevant)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    found = (precision * hits)[:, :k].sum(axis=1)
    return np.asarray(found / hits.sum(axis=1))


def exponential_gains(grades: Array) -> Array:
    """``2 ** grade - 1`` (Burges et al., 2005): gains for :func:`ndcg` that favour high grades."""
    return np.asarray(np.exp2(np.asarray(grades, dtype=np.float64)) - 1.0)


def ndcg(scores: Scores, gains: Array, k: int) -> Array:
    """``(q,)`` nDCG@k (Jarvelin and Kekalainen, 2002) with a log2 discount.

    Args:
        gains: ``(q, n)`` non-negative graded relevance: linear gains as they are, exponential ones
            by :func:`exponential_gains`.
    """
    gains = np.asarray(gains, dtype=np.float64)
    _checked(scores, gains > 0)
    discount = 1.0 / np.log2(np.arange(2, min(k, scores.shape[1]) + 2))
    order = _order(scores, gains)[:, :k]
    dcg = (np.take_along_axis(gains, order, axis=1) * discount).sum(axis=1)
    ideal = (-np.sort(-gains, axis=1)[:, :k] * discount).sum(axis=1)
    return np.asarray(dcg / ideal)


def bootstrap_interval(
    values: Array, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values (q,)`` (Efron, 1979)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(resamples, len(values)))
    means = np.asarray(values, dtype=np.float64)[picks].mean(axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation of ``a (n,)`` and ``b (n,)``, ties sharing their mean rank.

    Raises:
        InputError: fewer than two values, or all of one side are equal: it has no value then.
    """
    ranks = [_mean_ranks(np.asarray(x, dtype=np.float64)) for x in (a, b)]
    if len(ranks[0]) < 2 or any(np.ptp(r) == 0 for r in ranks):
        raise InputError("spearman", "needs two or more values that differ, on both sides")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[place])


def _ranked(scores: Scores, relevant: Array) -> Array:
    hits = _checked(scores, relevant)
    return np.take_along_axis(hits, _order(scores, hits), axis=1)


def _order(scores: Scores, gains: Array) -> Array:
    """Candidates from the first rank to the last; of equal scores the less relevant come first."""
    return np.lexsort((gains, -scores), axis=1)


def _checked(scores: Scores, relevant: Array) -> Array:
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise InputError(
            "<scores>", f"scores {scores.shape} and relevance {relevant.shape} are not one matrix"
        )
    if not np.isfinite(scores).all():
        raise InputError("<scores>", "hold values that are not finite")
    hits = np.asarray(relevant, dtype=bool)
    empty = np.flatnonzero(~hits.any(axis=1))
    if empty.size:
        raise InputError(f"query {empty[0]}", "has no relevant candidate")
    return hits

"""CoRNStack's filter (Suresh et al., 2025), over vectors of any embedder."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["consistent", "positive_ranks"]

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

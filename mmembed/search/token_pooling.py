"""Fewer token vectors a document: tokens that say the same become one.

Hierarchical token pooling is from Clavié, Chaffin and Adams, "Reducing the Footprint of
Multi-Vector Retrieval with Minimal Performance Impact via Token Pooling" (2024): Ward clustering,
and the mean of each cluster in place of its tokens.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import ConfigError

__all__ = ["pool_tokens", "ward_clusters"]

_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
_Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def pool_tokens(tokens: _Float32, factor: float) -> _Float32:
    """Unit means of the Ward clusters of ``(t, k)`` unit vectors.

    Args:
        tokens: at least one.
        factor: how many tokens become one on average; 1 changes nothing.

    Returns:
        ``(ceil(t / factor), k)`` float32, in the order of each cluster's first token.

    Raises:
        ConfigError: ``factor`` is below 1.
    """
    if factor < 1:
        raise ConfigError(f"pool factor {factor}: a factor of 2 makes one of two tokens; use >= 1")
    clusters = math.ceil(len(tokens) / factor)
    if clusters == len(tokens):
        return np.asarray(tokens, dtype=np.float32)
    labels = ward_clusters(tokens, clusters)
    sums = np.zeros((clusters, tokens.shape[1]), np.float32)
    np.add.at(sums, labels, np.asarray(tokens, np.float32))
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def ward_clusters(points: _Float32, clusters: int) -> _Labels:
    """Cut Ward's tree of ``(t, k)`` points into so many clusters.

    The tree is built by chains of nearest neighbours (Murtagh, 1983): ``t`` squared distances in
    memory, and as much time.

    Returns:
        ``(t,)`` labels from 0, in the order in which clusters first appear.
    """
    count = len(points)
    wide = np.asarray(points, dtype=np.float64)
    squares = (wide * wide).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * wide @ wide.T, 0)
    np.fill_diagonal(distances, np.inf)
    sizes = np.ones(count)
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    alive = np.ones(count, dtype=bool)
    while len(merges) < count - 1:
        if not chain:
            chain.append(int(np.argmax(alive)))
        here = chain[-1]
        row = distances[here]
        nearest = int(np.argmin(row))
        # At a tie the chain turns back, or it would run in circles.
        if len(chain) > 1 and row[chain[-2]] <= row[nearest]:
            nearest = chain[-2]
            height = float(row[nearest])
            del chain[-2:]
            merges.append((height, here, nearest))
            # The formula of Lance and Williams; the union takes the place of `nearest`.
            total = sizes[here] + sizes[nearest] + sizes
            merged = (
                (sizes[here] + sizes) * row
                + (sizes[nearest] + sizes) * distances[nearest]
                - sizes * height
            ) / total
            merged[~alive] = np.inf
            merged[[here, nearest]] = np.inf
            sizes[nearest] += sizes[here]
            alive[here] = False
            distances[nearest] = distances[:, nearest] = merged
            distances[here] = distances[:, here] = np.inf
        else:
            chain.append(nearest)
    return _cut(merges, count, clusters)


def _cut(merges: list[tuple[float, int, int]], count: int, clusters: int) -> _Labels:
    """Labels after the lowest ``count - clusters`` merges: in Ward's tree a parent is higher."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    # Stable, so that of equal heights the earlier merge, which the later may build on, comes first.
    for _, gone, kept in sorted(merges, key=lambda merge: merge[0])[: count - clusters]:
        parent[root(gone)] = root(kept)
    labels: dict[int, int] = {}
    return np.array([labels.setdefault(root(node), len(labels)) for node in range(count)])

"""Batches of rows that a teacher finds hard to tell apart: B3 (Thirukovela et al. 2025).

A teacher ranks every row's targets; rows are joined where one is a hard negative of another, with
the very best ranks left out, which may be false negatives. A balanced partition of that graph gives
communities, and a batch is some of them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmembed.errors import ConfigError, MissingDependencyError

__all__ = ["communities", "hard_neighbours"]

_Vectors = npt.NDArray[np.floating[Any]]
_BLOCK = 1024


def hard_neighbours(
    queries: _Vectors, positives: _Vectors, *, skip: int = 30, keep: int = 100
) -> npt.NDArray[np.int64]:
    """For each row the rows whose positives rank ``skip`` to ``skip + keep`` for its query.

    Args:
        queries: ``(n, d)`` unit vectors of a teacher.
        positives: ``(n, d)`` likewise.
        skip: best ranks to leave out, as they may answer the query too.
        keep: ranks to keep after those.

    Returns:
        ``(n, min(keep, n - 1 - skip))`` int64, best first; a row is never its own neighbour.

    Raises:
        ConfigError: there are no rows behind the skipped ranks.
    """
    n = len(queries)
    width = min(keep, n - 1 - skip)
    if width < 1:
        raise ConfigError(f"{n} rows leave no rank behind the {skip} that are skipped: skip fewer")
    found = np.empty((n, width), dtype=np.int64)
    for start in range(0, n, _BLOCK):
        scores = queries[start : start + _BLOCK] @ positives.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        top = skip + width
        best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[start : start + _BLOCK] = np.take_along_axis(best, order, axis=1)[:, skip:]
    return found


def communities(
    neighbours: npt.NDArray[np.int64],
    size: int,
    *,
    seed: int = 0,
    method: Literal["grow", "metis"] = "grow",
) -> npt.NDArray[np.int64]:
    """Split the graph of neighbours into communities of ``size`` rows with few edges between them.

    Args:
        neighbours: ``(n, m)`` int64; an edge counts twice where both rows name each other.
        size: rows of a community; the last one holds what is left.
        seed: of the order in which communities start.
        method: own greedy growth, or METIS through ``pymetis``, brought to equal sizes afterwards.

    Returns:
        ``(n,)`` int64 community of each row.

    Raises:
        MissingDependencyError: METIS without pymetis.
    """
    if size < 1:
        raise ConfigError(f"a community has at least one row, not {size}")
    starts, ends = _both_ways(neighbours)
    order = np.random.default_rng(seed).permutation(len(neighbours))
    if method == "metis":
        order = _metis_order(starts, ends, len(neighbours), size, order)
        labels = np.empty(len(neighbours), dtype=np.int64)
        labels[order] = np.arange(len(neighbours)) // size
        return labels
    return _grown(starts, ends, size, order)


def _both_ways(
    neighbours: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The undirected graph as ``(n + 1,)`` starts and the neighbours' numbers behind them."""
    n, width = neighbours.shape
    rows = np.repeat(np.arange(n), width)
    sources = np.concatenate([rows, neighbours.ravel()])
    targets = np.concatenate([neighbours.ravel(), rows])
    order = np.argsort(sources, kind="stable")
    counts = np.bincount(sources, minlength=n)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), targets[order]


def _grown(
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    size: int,
    order: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Each community starts at the next free row and takes the free row with most edges into it."""
    labels = np.full(len(order), -1, dtype=np.int64)
    free = iter(order.tolist())
    number = 0
    for first in free:
        if labels[first] >= 0:
            continue
        gains: dict[int, int] = {}
        row, count = first, 0
        while True:
            labels[row] = number
            gains.pop(row, None)
            count += 1
            if count == size:
                break
            for other in ends[starts[row] : starts[row + 1]].tolist():
                if labels[other] < 0:
                    gains[other] = gains.get(other, 0) + 1
            if gains:
                row = max(gains, key=lambda one: (gains[one], -one))
            else:
                row = next((one for one in free if labels[one] < 0), -1)
                if row < 0:
                    return labels
        number += 1
    return labels


def _metis_order(
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    rows: int,
    size: int,
    order: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Rows with those of a METIS part together; cutting it evenly moves few rows between parts."""
    try:
        import pymetis  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MissingDependencyError("METIS partitions", "train") from None
    parts = max(1, rows // size)
    _, found = pymetis.part_graph(parts, xadj=starts.tolist(), adjncy=ends.tolist())
    labels = np.asarray(found)
    return order[np.argsort(labels[order], kind="stable")]

"""Joining ranked lists of different searches into one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["reciprocal_rank_fusion"]

Key = TypeVar("Key", bound=Hashable)


def reciprocal_rank_fusion(
    rankings: Iterable[Sequence[Key]], *, k: int = 60
) -> list[tuple[Key, float]]:
    """Score each key by the sum of ``1 / (k + rank)`` over the lists that hold it.

    Only ranks count, so lists whose scores have different scales can be joined (Cormack, Clarke
    and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR 2009).

    Args:
        rankings: lists of distinct keys, best first.
        k: damps the weight of the first ranks; 60 in the paper.

    Returns:
        All keys with their scores, best first; equal scores keep the order of first appearance.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])

"""A part of a task, for models that take too long over the whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks.tasks import Clustering, Naming, Retrieval, Similarity

__all__ = ["sampled"]


@singledispatch
def sampled(task: Any, most: int) -> Any:
    """The same task over at most ``most`` queries, pairs or items, spread evenly over the whole.

    Of retrieval also the documents are cut: what answers the queries stays, and others, spread
    evenly, fill up to ``most``. Fewer candidates make it easier, so that figures of a sample stand
    beside figures of the same sample only.

    Raises:
        ConfigError: ``most`` is below 1, or such a task cannot be cut.
    """
    raise ConfigError(f"{type(task).__name__} cannot be cut to a sample")


@sampled.register
def _(task: Retrieval, most: int) -> Retrieval:
    rows = _spread(len(task.queries), most)
    apart = [task.apart[row] for row in rows] if task.apart else []
    needed = {place for row in rows for place in task.gains[row]} | {p for p in apart if p >= 0}
    others = [place for place in range(len(task.documents)) if place not in needed]
    if (room := most - len(needed)) > 0 and others:
        needed |= {others[i] for i in _spread(len(others), room)}
    kept = sorted(needed)
    new = {old: i for i, old in enumerate(kept)}
    return Retrieval(
        _at(task.queries, rows),
        _at(task.documents, kept),
        [{new[place]: gain for place, gain in task.gains[row].items()} for row in rows],
        task.main,
        [new.get(place, -1) for place in apart],
    )


@sampled.register
def _(task: Similarity, most: int) -> Similarity:
    rows = _spread(len(task.first), most)
    return Similarity(_at(task.first, rows), _at(task.second, rows), _at(task.labels, rows))


@sampled.register
def _(task: Naming, most: int) -> Naming:
    rows = _spread(len(task.items), most)
    return Naming(_at(task.items, rows), task.names, _at(task.labels, rows))


@sampled.register
def _(task: Clustering, most: int) -> Clustering:
    rows = _spread(len(task.items), most)
    return Clustering(_at(task.items, rows), _at(task.labels, rows))


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, both ends among them."""
    if most < 1:
        raise ConfigError(f"most={most}: a sample has at least 1 item")
    return [int(i) for i in np.rint(np.linspace(0, count - 1, min(count, most)))]


def _at(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[place] for place in places]

"""Kinds of tasks: retrieval, similarity of pairs, naming by a list of names, clustering.

A task has two sides of items. :meth:`encode` embeds them and :meth:`score` measures the vectors, so
that the same vectors can be measured again after truncation, quantisation or projection.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.evaluation.benchmarks.measured import Measured, figure_of, resampled
from mmembed.evaluation.labels import accuracy, cluster, v_measure
from mmembed.gpte.metrics import (
    average_precision,
    exponential_gains,
    hit,
    mrr,
    ndcg,
    recall,
    spearman,
)

__all__ = [
    "Array",
    "Clustering",
    "Encoder",
    "Naming",
    "Retrieval",
    "Sides",
    "Similarity",
    "Task",
    "cosines",
]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Sides: TypeAlias = tuple[Array, Array]
"""``(n, d)`` and ``(m, d)`` float32 vectors of a task's two sides."""

CUTOFFS = (1, 5, 10)


class Encoder(Protocol):
    """What can be measured; an :class:`mmembed.Embedder` is one."""

    def encode_query(self, inputs: Any) -> Any: ...
    def encode_document(self, inputs: Any) -> Any: ...


class Task(Protocol):
    """Two sides of items, and what is measured over their vectors."""

    def encode(self, model: Encoder) -> Sides: ...
    def score(self, sides: Sides) -> Measured: ...


def cosines(first: Array, second: Array) -> Array:
    """``(n, m)`` float32 cosines of two sets of vectors."""
    return np.asarray(_unit(first) @ _unit(second).T)


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Each query against all documents.

    Attributes:
        queries: items.
        documents: items.
        gains: for each query the grade, above 0, of each relevant document by its index.
        main: the metric that stands for the task.
        apart: for each query a document that it may not find, such as itself; -1 for none.

    Raises:
        InputError: the sides do not fit together.
    """

    queries: Sequence[Any]
    documents: Sequence[Any]
    gains: Sequence[Mapping[int, float]]
    main: str = "ndcg@10"
    apart: Sequence[int] = ()

    def __post_init__(self) -> None:
        if len(self.gains) != len(self.queries) or not self.queries:
            reason = f"has {len(self.queries)} queries and {len(self.gains)} judgements"
            raise InputError("retrieval", reason)
        for row, one in enumerate(self.gains):
            if not one or min(one) < 0 or max(one) >= len(self.documents):
                raise InputError(f"query {row}", "has no relevant document among the candidates")

    def encode(self, model: Encoder) -> Sides:
        """Vectors of queries and documents, by the model's two roles."""
        return (
            np.asarray(model.encode_query(self.queries)),
            np.asarray(model.encode_document(self.documents)),
        )

    def matrices(self, sides: Sides) -> tuple[Array, Array]:
        """Scores and gains ``(q, n)``."""
        scores = cosines(*sides).astype(np.float64)
        gains = np.zeros(scores.shape)
        for row, one in enumerate(self.gains):
            gains[row, list(one)] = list(one.values())
        for row, place in enumerate(self.apart):
            if place >= 0:
                scores[row, place], gains[row, place] = -2.0, 0.0
        return scores, gains

    def score(self, sides: Sides) -> Measured:
        """nDCG@5 and @10 (linear, and exponential @10), MRR, MAP, hit@1 and recall."""
        return self.measured(*self.matrices(sides))

    def measured(self, scores: Array, gains: Array) -> Measured:
        """The same of scores and gains ``(q, n)``; ties count against the scores."""
        relevant = gains > 0
        values = {
            "ndcg@10": ndcg(scores, gains, 10),
            "ndcg@5": ndcg(scores, gains, 5),
            "ndcg_exp@10": ndcg(scores, exponential_gains(gains), 10),
            "mrr": mrr(scores, relevant),
            "map": average_precision(scores, relevant),
            "hit@1": hit(scores, relevant),
            **{f"recall@{k}": recall(scores, relevant, k) for k in CUTOFFS},
        }
        figures = {name: figure_of(found) for name, found in values.items()}
        main = [float(x) for x in values[self.main]]
        return Measured(self.main, figures, len(scores), scores.shape[1], main)


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """Pairs that people graded; neither side is a query."""

    first: Sequence[Any]
    second: Sequence[Any]
    labels: Sequence[float]

    def encode(self, model: Encoder) -> Sides:
        """Vectors of both sides, by the document role, which most models leave without a prompt."""
        encode = model.encode_document
        return np.asarray(encode(self.first)), np.asarray(encode(self.second))

    def score(self, sides: Sides) -> Measured:
        """Spearman's correlation of cosines and grades."""
        found = (_unit(sides[0]).astype(np.float64) * _unit(sides[1])).sum(axis=1)
        labels = np.asarray(self.labels, dtype=np.float64)

        def statistic(rows: Array) -> float:
            if np.ptp(found[rows]) == 0 or np.ptp(labels[rows]) == 0:
                return float("nan")  # a resample of equal rows has no rank correlation
            return spearman(found[rows], labels[rows])

        return Measured("spearman", {"spearman": resampled(statistic, len(found))}, len(found), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Naming:
    """Each item is given the nearest of a list of names (zero-shot classification)."""

    items: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[int]

    def encode(self, model: Encoder) -> Sides:
        """Vectors of items and names."""
        return (
            np.asarray(model.encode_document(self.items)),
            np.asarray(model.encode_query(self.names)),
        )

    def score(self, sides: Sides) -> Measured:
        """Accuracy, and the share of items whose name is among the first five."""
        scores = cosines(*sides)
        own = np.zeros(scores.shape, dtype=bool)
        own[np.arange(len(own)), list(self.labels)] = True
        values = hit(scores, own, 1)
        figures = {"accuracy": figure_of(values), "accuracy@5": figure_of(hit(scores, own, 5))}
        return Measured("accuracy", figures, len(scores), len(self.names), values.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """Items in as many clusters as they have classes; and each item's nearest neighbour's class."""

    items: Sequence[Any]
    labels: Sequence[Hashable]

    def encode(self, model: Encoder) -> Sides:
        """Vectors of the items, on both sides."""
        vectors = np.asarray(model.encode_document(self.items))
        return vectors, vectors

    def score(self, sides: Sides) -> Measured:
        """V-measure of k-means clusters; accuracy of the nearest other item's class."""
        vectors = _unit(sides[0])
        groups = cluster(vectors, len(set(self.labels)))

        def agreement(rows: Array) -> float:
            return v_measure([self.labels[i] for i in rows], [groups[i] for i in rows])

        near = vectors @ vectors.T
        np.fill_diagonal(near, -2.0)
        nearest = [self.labels[i] for i in near.argmax(axis=1)]
        figures = {
            "v_measure": resampled(agreement, len(vectors), 200),
            "neighbour_accuracy": figure_of(accuracy(list(self.labels), nearest)),
        }
        return Measured("v_measure", figures, len(vectors), len(set(self.labels)))


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

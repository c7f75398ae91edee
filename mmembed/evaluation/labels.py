"""Metrics of predicted labels: accuracy, and how well clusters agree with classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import InputError, MissingDependencyError

__all__ = ["accuracy", "cluster", "v_measure"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def accuracy(labels: Sequence[Hashable], predicted: Sequence[Hashable]) -> Array:
    """``(n,)`` 1 where the prediction is the label, else 0; its mean is the accuracy.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    _check(labels, predicted)
    return np.array([float(a == b) for a, b in zip(labels, predicted, strict=True)])


def v_measure(labels: Sequence[Hashable], clusters: Sequence[Hashable]) -> float:
    """Harmonic mean of homogeneity and completeness (Rosenberg and Hirschberg, 2007), 0 to 1.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    _check(labels, clusters)
    table = np.zeros((len(set(labels)), len(set(clusters))))
    rows = {value: i for i, value in enumerate(dict.fromkeys(labels))}
    columns = {value: i for i, value in enumerate(dict.fromkeys(clusters))}
    for label, group in zip(labels, clusters, strict=True):
        table[rows[label], columns[group]] += 1
    joint = table / table.sum()
    of_labels, of_clusters = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))
    shared = of_labels + of_clusters - _entropy(joint.ravel())
    homogeneity = shared / of_labels if of_labels else 1.0
    completeness = shared / of_clusters if of_clusters else 1.0
    total = homogeneity + completeness
    return 2.0 * homogeneity * completeness / total if total > 1e-12 else 0.0


def cluster(vectors: Array, groups: int, seed: int = 42) -> list[int]:
    """The k-means cluster of each vector ``(n, d)``.

    Fitted as mteb fits it (``ClusteringEvaluator``), by mini-batches of 500 from its seed, so that
    both give the same clusters.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise MissingDependencyError("clustering", "eval") from error
    means = MiniBatchKMeans(groups, batch_size=500, n_init="auto", random_state=seed)
    return [int(value) for value in means.fit_predict(vectors)]


def _entropy(shares: Array) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def _check(labels: Sequence[Hashable], predicted: Sequence[Hashable]) -> None:
    if len(labels) != len(predicted) or not labels:
        raise InputError(
            "labels", f"{len(labels)} labels and {len(predicted)} predictions cannot be compared"
        )

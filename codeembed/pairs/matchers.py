"""CodeRetriever's code-code pairs (Li et al., 2022): same name or documentation, then judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from codeembed.pairs.duplicates import similarity
from codeembed.pairs.functions import name_words

__all__ = ["Judge", "match_documentation", "match_names"]

Array = np.ndarray[Any, np.dtype[Any]]
_COMMON = frozenset({"main", "run", "test", "init", "get", "set", "close", "call", "update"})


def match_names(names: Sequence[str], *, most: int = 20) -> list[tuple[int, int]]:
    """Pairs of functions whose names have the same words in any order.

    Args:
        names: Of all functions.
        most: Names that more functions share say nothing, and are left out; so are single common
            words.
    """
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        words = tuple(sorted(name_words(name)))
        if len(words) > 1 or (words and words[0] not in _COMMON):
            groups[words].append(number)
    return sorted(
        pair for group in groups.values() if len(group) <= most for pair in combinations(group, 2)
    )


def match_documentation(
    vectors: Array, *, least: float = 0.8, most: int = 3
) -> list[tuple[int, int]]:
    """Pairs of functions whose documentation has a cosine of at least ``least``.

    Args:
        vectors: ``(n, d)`` unit vectors of the documentation by any text embedder.
        most: Nearest others that a function may be paired with.
    """
    found: set[tuple[int, int]] = set()
    for number, vector in enumerate(vectors):
        scores = vectors @ vector
        scores[number] = -np.inf
        for other in np.argsort(-scores, kind="stable")[:most].tolist():
            if scores[other] >= least:
                found.add((min(number, other), max(number, other)))
    return sorted(found)


class Judge:
    """A small classifier that keeps candidate pairs which look like true ones.

    It is taught on pairs of a function and its own documentation against shuffled ones, over
    features of two texts with their vectors: cosine, and Jaccard similarity of shingles.
    """

    def __init__(self) -> None:
        self._weights: Array = np.zeros(3)

    @staticmethod
    def features(first: tuple[str, Array], second: tuple[str, Array]) -> Array:
        """``(3,)``: one, the cosine of the unit vectors, and the shared share of token pairs."""
        cosine = float(first[1] @ second[1])
        return np.array([1.0, cosine, similarity(first[0], second[0], 2)])

    def fit(self, features: Array, labels: Array, *, penalty: float = 1e-2) -> Judge:
        """Logistic regression by Newton's method.

        Args:
            features: ``(n, 3)``.
            labels: ``(n,)`` of 0 and 1.
            penalty: L2, which keeps weights finite where classes separate.
        """
        weights = np.zeros(features.shape[1])
        for _ in range(50):
            chances = _sigmoid(features @ weights)
            slope = features.T @ (chances - labels) + penalty * weights
            curve = (features.T * (chances * (1 - chances))) @ features
            step = np.linalg.solve(curve + penalty * np.eye(len(weights)), slope)
            weights = weights - step
            if np.abs(step).max() < 1e-10:
                break
        self._weights = weights
        return self

    def __call__(self, features: Array) -> Array:
        """``(n,)`` probabilities that pairs with these features are true ones."""
        return _sigmoid(features @ self._weights)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -500, 500))))

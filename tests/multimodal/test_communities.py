"""Communities of rows that are hard for each other (B3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.multimodal.communities import communities, hard_neighbours


def planted(groups: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors around so many centres, shuffled; and the group of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 16))
    labels = rng.permutation(np.repeat(np.arange(groups), size))
    vectors = []
    for _ in range(2):
        found = centres[labels] + 0.2 * rng.normal(size=(len(labels), 16))
        vectors.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    return vectors[0], vectors[1], labels


def test_neighbours_are_the_ranks_behind_those_that_are_skipped() -> None:
    queries, positives, _ = planted(5, 8)
    found = hard_neighbours(queries, positives, skip=3, keep=6)
    scores = queries @ positives.T
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, 3:9]
    np.testing.assert_array_equal(found, expected)


def test_too_few_rows_for_the_ranks_are_an_error_with_numbers() -> None:
    queries, positives, _ = planted(2, 5)
    with pytest.raises(ConfigError, match="10 rows leave no rank behind the 30"):
        hard_neighbours(queries, positives)
    assert hard_neighbours(queries, positives, skip=2).shape == (10, 7)


def test_planted_groups_are_found() -> None:
    queries, positives, labels = planted(12, 8)
    neighbours = hard_neighbours(queries, positives, skip=0, keep=6)
    found = communities(neighbours, 8, seed=1)
    pure = [len(set(labels[found == one])) == 1 for one in range(found.max() + 1)]
    assert np.mean(pure) > 0.8


def inside(neighbours: np.ndarray, labels: np.ndarray) -> float:
    """Share of edges that stay inside a community."""
    return float((labels[neighbours] == labels[:, None]).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 9), st.integers(0, 3))
def test_communities_are_balanced_complete_and_repeatable(rows: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours = rng.integers(0, rows, size=(rows, 4))
    found = communities(neighbours, size, seed=seed)
    counts = np.bincount(found)
    assert (found >= 0).all()
    assert (counts[:-1] == size).all()
    assert 1 <= counts[-1] <= size
    np.testing.assert_array_equal(found, communities(neighbours, size, seed=seed))


def test_growing_keeps_more_edges_inside_than_chance() -> None:
    rng = np.random.default_rng(0)
    queries, positives, _ = planted(6, 30)
    neighbours = hard_neighbours(queries, positives, skip=2, keep=20)
    grown = inside(neighbours, communities(neighbours, 10))
    chance = inside(neighbours, rng.permutation(np.arange(180) // 10))
    assert grown > 4 * chance


def test_metis_gives_communities_of_equal_size_where_it_is_installed() -> None:
    queries, positives, _ = planted(6, 12)
    neighbours = hard_neighbours(queries, positives, skip=0, keep=10)
    try:
        found = communities(neighbours, 12, method="metis")
    except MissingDependencyError:
        pytest.skip("pymetis is not installed")
    assert (np.bincount(found) == 12).all()

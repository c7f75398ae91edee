"""Metrics against their definitions, with ties, and the fixed splits."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.evaluation.figures import retrieval_report
from mmembed.evaluation.splits import held_out, name_hash, split_of_figures
from mmembed.gpte.metrics import bootstrap_interval, first_ranks, mrr, ndcg, recall, spearman

SCORES = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2], [0.1, 0.3, 0.2]])
OWN = np.eye(3, dtype=bool)


def test_by_hand_with_ties_against_the_model() -> None:
    assert first_ranks(SCORES, OWN).tolist() == [1, 3, 2]
    assert recall(SCORES, OWN, 1).tolist() == [1, 0, 0]
    assert recall(SCORES, OWN, 2).tolist() == [1, 0, 1]
    assert mrr(SCORES, OWN).tolist() == pytest.approx([1, 1 / 3, 1 / 2])
    assert mrr(SCORES, OWN, 2).tolist() == pytest.approx([1, 0, 1 / 2])


def test_ndcg_with_grades() -> None:
    scores = np.array([[3.0, 2.0, 1.0]])
    gains = np.array([[0, 2, 1]])
    dcg = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert ndcg(scores, gains, 3)[0] == pytest.approx(dcg / ideal)
    assert ndcg(scores, gains, 1)[0] == 0


@given(st.integers(2, 12), st.integers(0, 5))
def test_recall_equals_counting(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (size, size)).astype(float)
    own = np.eye(size, dtype=bool)
    for k in (1, 3, size):
        slow = [
            sum(scores[i, j] >= scores[i, i] for j in range(size) if j != i) < k
            for i in range(size)
        ]
        assert recall(scores, own, k).tolist() == [float(hit) for hit in slow]


def test_bad_matrices_are_named() -> None:
    with pytest.raises(InputError, match="not one matrix"):
        recall(SCORES, OWN[:2], 1)
    with pytest.raises(InputError, match="not finite"):
        recall(np.full((3, 3), np.nan), OWN, 1)
    with pytest.raises(InputError, match="query 1"):
        mrr(SCORES, OWN & (np.arange(3) != 1)[:, None])


def test_intervals_hold_the_mean() -> None:
    values = np.random.default_rng(0).random(200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low < 0.1


def test_report_of_a_perfect_model() -> None:
    report = retrieval_report(np.eye(12), np.eye(12))
    assert report.candidates == 12
    assert report.text_to_image.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert report.image_to_text.mrr == 1.0


def test_splits_are_fixed_by_names() -> None:
    files = [f"images/{i}.jpg" for i in range(1000)]
    splits = split_of_figures(files)
    assert Counter(splits) == {"train": 300, "dev": 300, "test": 400}
    assert split_of_figures(files[::-1])[::-1] == splits
    worst_test = max(name_hash(f) for f, s in zip(files, splits, strict=True) if s == "test")
    assert all(name_hash(f) > worst_test for f, s in zip(files, splits, strict=True) if s != "test")


def test_every_group_gives_something_up() -> None:
    rows = [(f"{i}.jpg", i % 7) for i in range(70)]
    out = held_out(rows, lambda row: row[0], lambda row: row[1])
    assert Counter(group for _, group in out) == dict.fromkeys(range(7), 1)


@settings(deadline=None)  # scipy takes its time to be imported
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=20),
    st.randoms(use_true_random=False),
)
def test_spearman_equals_scipy(values: list[int], random: Any) -> None:
    stats = pytest.importorskip("scipy.stats")
    other = [random.randint(0, 4) for _ in values]
    if len(set(values)) < 2 or len(set(other)) < 2:
        with pytest.raises(InputError):
            spearman(np.asarray(values), np.asarray(other))
        return
    expected = stats.spearmanr(values, other).statistic
    assert spearman(np.asarray(values), np.asarray(other)) == pytest.approx(expected)

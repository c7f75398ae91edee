"""Reciprocal rank fusion."""

from __future__ import annotations

import pytest

from mmembed.search.fusion import reciprocal_rank_fusion


def test_scores_are_those_of_the_paper() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b", "c"], ["c", "a"]]))
    assert fused == {
        "a": pytest.approx(1 / 61 + 1 / 62),
        "b": pytest.approx(1 / 62),
        "c": pytest.approx(1 / 63 + 1 / 61),
    }


def test_order_is_by_score_and_stable() -> None:
    assert [key for key, _ in reciprocal_rank_fusion([["a", "b"], ["x", "b"]])] == ["b", "a", "x"]


def test_one_list_keeps_its_order() -> None:
    assert [key for key, _ in reciprocal_rank_fusion([[3, 1, 2], []])] == [3, 1, 2]


def test_nothing_in_nothing_out() -> None:
    assert reciprocal_rank_fusion([]) == []


def test_small_k_favours_the_first_rank() -> None:
    # "a" is first once; "b" is third twice.
    rankings = [["a", "x", "b"], ["y", "z", "b"]]
    assert reciprocal_rank_fusion(rankings, k=0)[0][0] == "a"
    assert reciprocal_rank_fusion(rankings, k=60)[0][0] == "b"

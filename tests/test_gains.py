"""Gains over seeds: their numbers by hand, and intervals that grow where seeds disagree."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from gains import Ran, gains, told

from mmembed.gpte.evaluating import Measured

BEFORE = {"a": Measured(np.array([0.1, 0.3])), "b": Measured(np.full(4, 0.5))}


def after(by: float) -> dict[str, Measured]:
    return {name: Measured(one.values + by) for name, one in BEFORE.items()}


def test_numbers_are_means_over_sets_and_seeds() -> None:
    found = gains([(BEFORE, after(0.1)), (BEFORE, after(0.3))])
    assert found["gains"] == [0.1, 0.3]
    assert found["gain"] == pytest.approx(0.2)
    assert found["sets"]["a"]["before"] == pytest.approx(0.2)
    assert found["sets"]["b"]["after"] == pytest.approx(0.7)
    assert found["sets"]["b"]["rows"] == 4
    # Both gain the same on every query, so that only the seeds differ.
    assert found["interval"] == [0.1, 0.3]


def test_seeds_vary_as_their_mean_does() -> None:
    shifts = [0.0, 0.1, 0.2]
    found = gains([(BEFORE, after(by)) for by in shifts])
    wanted = np.std(shifts, ddof=1) / 3**0.5
    rng = np.random.default_rng(0)
    drawn = rng.choice(shifts, (100_000, 2)).mean(axis=1)
    assert drawn.std() == pytest.approx(wanted, rel=0.02)
    assert found["interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-6)


def test_queries_are_paired_and_one_seed_is_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(0)
    old = {"a": Measured(rng.random(50))}
    new = {"a": Measured(old["a"].values + rng.normal(0.1, 0.2, 50))}
    found = gains([(old, new)])
    differences = new["a"].values - old["a"].values
    width = found["interval"][1] - found["interval"][0]
    assert width == pytest.approx(2 * 1.96 * differences.std() / 50**0.5, rel=0.15)
    assert found["beats_start"] == (found["interval"][0] > 0)


def test_what_is_compared_besides_and_its_costs_are_told() -> None:
    runs = [Ran(BEFORE, after(0.1), {"more": (BEFORE, after(0.2))}, 2.0, 1.0) for _ in range(2)]
    found = told(runs)
    assert found["more"]["gain"] == pytest.approx(0.2)
    assert (found["gain"], found["seconds"], found["cpu_seconds"]) == (0.1, 4, 2)

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import ConfigError
from mmembed.gpte.batching import Plan
from mmembed.gpte.config import BatchConfig


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of every order and mixture over a few sources."""
    world = draw(st.integers(1, 4))
    size = draw(st.integers(world, 12))
    sizes = tuple(draw(st.lists(st.integers(max(size, 2 * world), 60), min_size=1, max_size=4)))
    order = draw(st.sampled_from(["mixed", "homogeneous", "contextual"]))
    tokens = None if order == "contextual" else draw(st.none() | st.integers(5, 200))
    mixture = draw(st.sampled_from(["all", "weights", "sizes"]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return Plan(
        sizes,
        BatchConfig(size=size, tokens=tokens, order=order, mixture=mixture),
        seed=draw(st.integers(0, 5)),
        world=world,
        weights=tuple(random.uniform(0.5, 3, len(sizes))),
        lengths=random.integers(1, 40, sum(sizes)),
        clusters=random.integers(0, 5, sum(sizes)),
    )


def _fresh(plan: Plan, **changes: object) -> Plan:
    values = {
        name: getattr(plan, name)
        for name in ("sizes", "config", "seed", "world", "weights", "lengths", "clusters")
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 2))
def test_an_epoch_of_all_rows_has_each_row_once(plan: Plan, epoch: int) -> None:
    found = np.sort(plan.epoch(epoch).rows)
    if plan.config.mixture == "all":
        np.testing.assert_array_equal(found, np.arange(sum(plan.sizes)))
    assert found.min() >= 0
    assert found.max() < sum(plan.sizes)


@settings(max_examples=100, deadline=None)
@given(plans())
def test_ranks_share_every_batch_and_none_is_empty(plan: Plan) -> None:
    for step in range(len(plan.epoch(0)) + 1):
        epoch, batch = plan.batch(step)
        shares = [plan.share(step, rank) for rank in range(plan.world)]
        assert all(e == epoch and len(rows) for e, rows in shares)
        joined = np.concatenate([rows for _, rows in shares])
        np.testing.assert_array_equal(np.sort(joined), np.sort(batch))
        room = max(plan.config.size, 2 * plan.world)
        assert len(batch) <= room or plan.config.tokens is not None


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 40))
def test_a_resumed_plan_is_the_same_plan(plan: Plan, start: int) -> None:
    straight = [plan.batch(step) for step in range(start + 3)]
    resumed = _fresh(plan)
    for step in (start, start + 1, start + 2):
        epoch, rows = resumed.batch(step)
        assert epoch == straight[step][0]
        np.testing.assert_array_equal(rows, straight[step][1])


@settings(max_examples=60, deadline=None)
@given(plans())
def test_the_length_is_exact(plan: Plan) -> None:
    per_epoch = [len(plan.epoch(e)) for e in range(3)]
    assert plan.steps(3) == sum(per_epoch)
    assert plan.locate(sum(per_epoch[:2])) == (2, 0)
    assert plan.locate(per_epoch[0] - 1) == (0, per_epoch[0] - 1)
    assert 0 < plan.steps(0.5) <= per_epoch[0]


@settings(max_examples=60, deadline=None)
@given(plans())
def test_homogeneous_batches_have_one_source(plan: Plan) -> None:
    if plan.config.order == "homogeneous":
        for step in range(len(plan.epoch(0))):
            assert len({plan.source_of(row) for row in plan.batch(step)[1]}) == 1


def test_epochs_and_seeds_shuffle_anew() -> None:
    plan = Plan((100,), BatchConfig(size=10), seed=1)
    first, second = plan.epoch(0).rows, plan.epoch(1).rows
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, _fresh(plan, seed=2).epoch(0).rows)


def test_the_batches_do_not_depend_on_the_world() -> None:
    one, four = (Plan((103,), BatchConfig(size=10), world=w) for w in (1, 4))
    np.testing.assert_array_equal(one.epoch(0).rows, four.epoch(0).rows)


def test_weighted_mixtures_draw_in_proportion_and_evenly() -> None:
    config = BatchConfig(size=10, mixture="weights")
    plan = Plan((900, 100), config, weights=(1.0, 3.0))
    drawn = np.concatenate([plan.epoch(e).rows for e in range(4)])
    counts = np.bincount(drawn, minlength=1000)
    assert counts[900:].sum() == 3000
    assert counts[:900].sum() == 1000
    assert set(counts[900:]) == {30}  # whole rounds: every row equally often
    assert set(counts[:900]) == {1, 2}


def test_proportional_sampling_follows_the_power_of_sizes() -> None:
    plan = Plan((10_000, 100), BatchConfig(size=100, mixture="sizes", alpha=0.5))
    counts = np.bincount(plan.epoch(0).rows >= 10_000)
    assert counts[0] / counts[1] == pytest.approx(10, rel=0.01)


def test_token_budgets_hold_and_rows_are_alike() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    plan = Plan((2000,), BatchConfig(size=64, tokens=512), lengths=lengths)
    epoch = plan.epoch(0)
    spreads = []
    for step in range(len(epoch)):
        held = lengths[epoch.batch(step)]
        assert held.sum() <= 512
        spreads.append(held.max() - held.min())
    assert np.mean(spreads) < 10
    packed = lengths.sum() / (512 * len(epoch))
    assert packed > 0.85


def test_contextual_batches_keep_clusters_together() -> None:
    clusters = np.repeat(np.arange(20), 10)
    plan = Plan((200,), BatchConfig(size=10, order="contextual"), clusters=clusters)
    for step, epoch in itertools.product(range(20), range(2)):
        assert len(set(clusters[plan.epoch(epoch).batch(step)])) == 1
    assert not np.array_equal(plan.epoch(0).rows, plan.epoch(1).rows)


@pytest.mark.parametrize(
    ("sizes", "config", "message"),
    [
        ((5,), BatchConfig(size=8), "the data has 5 rows, fewer than one batch of 8"),
        ((20, 5), BatchConfig(size=8, order="homogeneous"), "small has 5 rows"),
        ((20,), BatchConfig(size=8, tokens=100), "lengths"),
        ((20,), BatchConfig(size=8, order="contextual"), "data.guide"),
        ((20,), BatchConfig(size=8, mixture="weights"), "1 sources have 0 weights"),
    ],
)
def test_impossible_plans(sizes: tuple[int, ...], config: BatchConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(sizes, config, names=("large", "small"))


def test_more_processes_than_rows() -> None:
    with pytest.raises(ConfigError, match="each of 4 processes"):
        Plan((20,), BatchConfig(size=2), world=4)

"""Mixtures of hard negatives against the formula, written with loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.objectives import InfoNCE, KLDistillation, Matryoshka, MixedNegatives
from mmembed.gpte.protocols import Columns, Outputs

N, K, D = 3, 4, 6
NO_HASH = torch.iinfo(torch.int64).min


def draw(*shape: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g, requires_grad=True)


def batch(step: int = 3) -> Columns:
    return Columns(
        Outputs(dense=draw(N, D, seed=1)),
        Outputs(dense=draw(N, D, seed=2)),
        Outputs(dense=draw(N * K, D, seed=3)),
        K,
        meta={"query_hash": torch.tensor([5, -6, 7]), "negative_hash": torch.arange(N * K)},
        guide={"negative": Outputs(dense=draw(N * K, 2, seed=4).detach())},
        shared={"step": torch.tensor(step)},
    )


def test_mixtures_are_pairs_and_the_softmax_of_the_list() -> None:
    columns = batch()
    made = MixedNegatives(InfoNCE(), pairs=2, alpha=3.0, list_temperature=0.1).mixed(columns)
    assert made.negatives_per_query == K + 3
    assert made.negative is not None
    assert made.negative.dense is not None
    assert columns.negative is not None
    assert columns.negative.dense is not None
    assert columns.query.dense is not None
    got = made.negative.dense.view(N, K + 3, D)
    own = F.normalize(columns.negative.dense, dim=1).view(N, K, D)
    query = F.normalize(columns.query.dense, dim=1)
    hashes = columns.meta["query_hash"].tolist()
    for i in range(N):
        torch.testing.assert_close(got[i, :K], own[i])
        random = np.random.default_rng([3, hashes[i] % 2**64])
        for pair in range(2):
            a, b = random.choice(K, 2, replace=False)
            share = random.beta(3.0, 3.0)
            mixture = F.normalize(share * own[i, a] + (1 - share) * own[i, b], dim=0)
            torch.testing.assert_close(got[i, K + pair], mixture)
        weights = torch.softmax(own[i] @ query[i] / 0.1, dim=0)
        expected = F.normalize((weights[:, None] * own[i]).sum(0), dim=0)
        torch.testing.assert_close(got[i, K + 2], expected)
    marks = made.meta["negative_hash"].view(N, K + 3)
    assert bool((marks[:, K:] == NO_HASH).all())
    assert marks[:, :K].flatten().tolist() == list(range(N * K))
    judged = made.guide["negative"].dense
    assert judged is not None
    assert judged.shape == (N * (K + 3), 2)


def test_the_loss_is_that_of_the_longer_list_and_reaches_every_negative() -> None:
    columns = batch()
    mixing = MixedNegatives(Matryoshka(InfoNCE(focal=0.5), (6, 3)))
    loss = mixing(columns)
    torch.testing.assert_close(loss.total, mixing.objective(mixing.mixed(columns)).total)
    assert set(loss.parts) == {"infonce@6", "infonce@3"}
    assert float(loss.total) > float(Matryoshka(InfoNCE(focal=0.5), (6, 3))(columns).total)
    assert columns.negative is not None
    assert columns.negative.dense is not None
    (gradient,) = torch.autograd.grad(loss.total, columns.negative.dense)
    assert bool((gradient.abs().sum(1) > 0).all())


def test_what_is_drawn_follows_the_step_and_the_query_alone() -> None:
    def negatives(columns: Columns) -> torch.Tensor:
        found = MixedNegatives(InfoNCE(), lists=False).mixed(columns).negative
        assert found is not None
        assert found.dense is not None
        return found.dense

    assert torch.equal(negatives(batch()), negatives(batch()))
    assert not torch.equal(negatives(batch()), negatives(batch(step=4)))


def test_mistakes() -> None:
    columns = batch()
    columns.negatives_per_query, columns.negative = 1, Outputs(dense=draw(N, D, seed=3))
    with pytest.raises(ConfigError, match="two hard negatives or more"):
        MixedNegatives(InfoNCE())(columns)
    with pytest.raises(ConfigError, match="give pairs of 1 or more, or lists"):
        MixedNegatives(KLDistillation(), pairs=0, lists=False)
    with pytest.raises(ConfigError, match="are positive"):
        MixedNegatives(InfoNCE(), alpha=0.0)

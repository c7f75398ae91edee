"""Contrast with a momentum encoder's keys, against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.config import MomentumConfig
from mmembed.gpte.objectives import MomentumContrast, learned_parameters
from mmembed.gpte.protocols import Columns, Outputs

N, D = 3, 5


def drawn(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, D, dtype=torch.float64, generator=generator)


def columns_of(query: Tensor, positive: Tensor) -> Columns:
    keys = {"query": Outputs(dense=drawn(N, 2)), "positive": Outputs(dense=drawn(N, 3))}
    queues = {"queue": drawn(4, 4), "query_queue": drawn(2, 5)}
    shared = {name: F.normalize(queue, dim=1) for name, queue in queues.items()}
    return Columns(Outputs(dense=query), Outputs(dense=positive), shared=shared, keys=keys)


def test_four_terms_are_the_formula() -> None:
    query, positive = drawn(N, 0).requires_grad_(), drawn(N, 1).requires_grad_()
    columns = columns_of(query, positive)
    found = MomentumContrast(0.2)(columns)
    queues = {"query": columns.shared["query_queue"], "positive": columns.shared["queue"]}
    expected = []
    for anchors in (query, positive):
        for side, keys in columns.keys.items():
            assert keys.dense is not None
            for i in range(N):
                candidates = [*keys.dense, *queues[side]]
                cosines = [F.cosine_similarity(anchors[i], key, dim=0) for key in candidates]
                logits = torch.stack(cosines) / 0.2
                expected.append(logits.logsumexp(0) - logits[i])
    wanted = torch.stack(expected).mean()
    torch.testing.assert_close(found.total, wanted)
    assert list(found.parts) == ["q2d", "d2q", "q2q", "d2d"]
    for ours, theirs in zip(
        torch.autograd.grad(found.total, [query, positive]),
        torch.autograd.grad(wanted, [query, positive]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_temperature_can_be_learned_and_starts_where_it_says() -> None:
    columns = columns_of(drawn(N, 0), drawn(N, 1))
    objective = MomentumContrast(0.2, learn_temperature=True, terms=("q2d",))
    learned = learned_parameters(objective, D).double()
    with_own = {**columns.shared, **learned}
    found = objective(Columns(columns.query, columns.positive, shared=with_own, keys=columns.keys))
    fixed = MomentumContrast(0.2, terms=("q2d",))(columns).total
    torch.testing.assert_close(found.total.detach(), fixed, rtol=1e-6, atol=0)
    found.total.backward()
    assert learned["log_scale"].grad != 0


def test_without_keys_of_both_sides_it_says_what_to_set() -> None:
    columns = columns_of(drawn(N, 0), drawn(N, 1))
    columns.keys = {"positive": columns.keys["positive"]}
    with pytest.raises(ConfigError, match="sides: both"):
        MomentumContrast()(columns)
    with pytest.raises(ConfigError, match="reads the positives too"):
        MomentumConfig(sides="both", positives="momentum")
    with pytest.raises(ConfigError, match="at least one term"):
        MomentumContrast(terms=())

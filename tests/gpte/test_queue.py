from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.queue import MomentumQueue, momentum_update


def test_first_in_first_out_across_the_end() -> None:
    queue = MomentumQueue(5, 3)
    assert queue.shared() == {}
    pushed = torch.randn(9, 3)
    queue.push(pushed[:3], torch.arange(3))
    assert torch.equal(queue.shared()["queue"], F.normalize(pushed[:3], dim=1))
    before = queue.shared()["queue"]
    queue.push(pushed[3:6], torch.arange(3, 6))
    queue.push(pushed[6:7])
    assert torch.equal(before, F.normalize(pushed[:3], dim=1))
    held = queue.shared()["queue"]
    expected = F.normalize(pushed[2:7], dim=1)
    assert {tuple(k) for k in held.tolist()} == {tuple(k) for k in expected.tolist()}
    assert set(queue.shared()["queue_hash"].tolist()) - {2, 3, 4, 5} == {-(2**63)}
    queue.push(pushed)  # more than fits
    assert {tuple(k) for k in queue.shared()["queue"].tolist()} == {
        tuple(k) for k in F.normalize(pushed[-5:], dim=1).tolist()
    }


def test_it_survives_a_checkpoint() -> None:
    queue, other = MomentumQueue(5, 3), MomentumQueue(5, 3)
    queue.push(torch.randn(7, 3), torch.arange(7))
    other.load_state_dict(queue.state_dict())
    more = torch.randn(2, 3)
    queue.push(more)
    other.push(more)
    for name, value in queue.shared().items():
        assert torch.equal(value, other.shared()[name])


def test_momentum() -> None:
    query = nn.Linear(2, 2)
    key = copy.deepcopy(query)
    with torch.no_grad():
        query.weight.add_(1.0)
    expected = 0.9 * key.weight.detach() + 0.1 * query.weight.detach()
    momentum_update(key, query, 0.9)
    torch.testing.assert_close(key.weight.detach(), expected)
    with pytest.raises(ConfigError, match="copy"):
        momentum_update(nn.Linear(2, 2, bias=False), query, 0.9)
    with pytest.raises(ConfigError, match="at least one"):
        MomentumQueue(0, 3)

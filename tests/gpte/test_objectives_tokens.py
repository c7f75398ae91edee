"""Token losses against short float64 forms, and what masking draws."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from gradients import check

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.tokens import (
    IGNORE,
    mask_tokens,
    mlm_loss,
    mntp_loss,
    next_token_labels,
    ntp_loss,
    rtd_loss,
    token_factor,
)
from mmembed.gpte.states import TokenStates, offsets_of

D = 8


def states_of(lengths: Sequence[int]) -> TokenStates:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(sum(lengths), D, dtype=torch.float64, generator=g)
    return TokenStates(hidden.requires_grad_(), offsets_of(lengths))


def test_token_losses() -> None:
    states = states_of([4, 1, 3])
    torch.manual_seed(0)
    head = nn.Linear(D, 13).double()
    ids = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12])
    labels = torch.tensor([IGNORE, 6, IGNORE, 8, IGNORE, IGNORE, 11, IGNORE])
    factor = token_factor([labels])
    assert factor == 1 / 3
    leaves = [states.hidden, head.weight]

    keep = labels != IGNORE
    expected = F.cross_entropy(head(states.hidden[keep]), labels[keep])
    check(mlm_loss(states, labels, head, factor, block_tokens=2), expected, leaves)

    # Masked token i from state i - 1.
    expected = F.cross_entropy(head(states.hidden[[0, 2, 5]]), labels[keep])
    check(mntp_loss(states, labels, head, factor), expected, leaves)

    following = next_token_labels(ids, [4, 1, 0, 3])
    assert following.tolist() == [6, 7, 8, IGNORE, IGNORE, 11, 12, IGNORE]
    keep = following != IGNORE
    expected = F.cross_entropy(head(states.hidden[keep]), following[keep])
    check(ntp_loss(states, following, head, token_factor([following])), expected, leaves)

    replaced = torch.tensor([0, 1, 0, 1, IGNORE, 0, 0, 1])
    logits = states.hidden[:, 0]
    keep = replaced != IGNORE
    expected = F.binary_cross_entropy_with_logits(logits[keep], replaced[keep].double())
    check(rtd_loss(logits, replaced, token_factor([replaced])), expected, [states.hidden])

    nothing = torch.full_like(labels, IGNORE)
    loss = mlm_loss(states, nothing, head, token_factor([nothing]))
    assert loss.item() == 0
    loss.backward()
    first = torch.full_like(labels, IGNORE)
    first[4] = 9
    with pytest.raises(ConfigError, match="first token"):
        mntp_loss(states, first, head, 1.0)
    with pytest.raises(ConfigError, match="one a token"):
        mlm_loss(states, labels[:-1], head, 1.0)


def test_token_losses_add_up_over_chunks() -> None:
    states = states_of([4, 1, 3])
    head = nn.Linear(D, 13).double()
    labels = torch.tensor([1, 6, IGNORE, 8, 2, IGNORE, 11, IGNORE])
    factor = token_factor([labels])
    whole = mlm_loss(states, labels, head, factor)
    pieces = [
        mlm_loss(TokenStates(states.hidden[a:b], offsets_of(lengths)), labels[a:b], head, factor)
        for a, b, lengths in ((0, 5, [4, 1]), (5, 8, [3]))
    ]
    check(torch.stack(pieces).sum(), whole, [states.hidden, head.weight])


def test_masking() -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (20_000,), generator=g)
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:100] = False
    out, labels = mask_tokens(ids, maskable, 3, 100, probability=0.2, generator=g)
    chosen = labels != IGNORE
    assert not chosen[:100].any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(out[~chosen], ids[~chosen])
    assert chosen.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (out[chosen] == 3).float().mean().item() == pytest.approx(0.8, abs=0.03)
    out, labels = mask_tokens(ids, maskable, 3, 100, keep=0.0, random=0.0, generator=g)
    assert (out[labels != IGNORE] == 3).all()

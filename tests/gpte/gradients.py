"""A loss against another form of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check(ours: Tensor, expected: Tensor, leaves: Sequence[Tensor]) -> None:
    """Assert equal float64 values, and equal gradients that are not all zero."""
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    mine = torch.autograd.grad(ours, leaves, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected, leaves, retain_graph=True, allow_unused=True)
    assert any(g is not None and bool(g.any()) for g in theirs)
    for a, b in zip(mine, theirs, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)

"""Token objectives of code models, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["IGNORE", "edge_loss", "identifier_loss", "scaled", "type_loss"]

IGNORE = -100


def identifier_loss(logits: Tensor, labels: Tensor, factor: float) -> Tensor:
    """Binary cross entropy of "this token is an identifier" (SynCoBERT, Wang et al., 2021).

    Args:
        logits: ``(t,)``.
        labels: ``(t,)`` int64 of 0 and 1; entries of -100 do not count.
        factor: What the sum over labelled tokens is multiplied by.
    """
    kept = labels != IGNORE
    targets = labels[kept].to(torch.promote_types(logits.dtype, torch.float32))
    asked = logits[kept].to(targets.dtype)
    return F.binary_cross_entropy_with_logits(asked, targets, reduction="sum") * factor


def type_loss(logits: Tensor, labels: Tensor, factor: float) -> Tensor:
    """Cross entropy of a token's class: its own type (Code-MVP, Wang et al., 2022) or its parent
    node's (CONCORD, Ding et al., 2023).

    Args:
        logits: ``(t, classes)``.
        labels: ``(t,)`` int64 below ``classes``; entries of -100 do not count.
        factor: As in :func:`identifier_loss`.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, labels, ignore_index=IGNORE, reduction="sum") * factor


def edge_loss(hidden: Tensor, pairs: Tensor, labels: Tensor, factor: float) -> Tensor:
    """Binary cross entropy of "there is an edge between these": ``p(i, j) = sigmoid(h_i h_j)``.

    SynCoBERT (Wang et al., 2021) predicts the hidden edges of the tree so, and GraphCodeBERT (Guo
    et al., 2021) those of the data flow.

    Args:
        hidden: ``(t, d)`` token states.
        pairs: ``(m, 2)`` int64 tokens, a parent and a child.
        labels: ``(m,)`` int64 of 0 and 1.
        factor: What the sum over pairs is multiplied by.
    """
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    logits = (wide[pairs[:, 0]] * wide[pairs[:, 1]]).sum(dim=1)
    targets = labels.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") * factor


def scaled(hidden: Tensor) -> Tensor:
    """``(t, d)`` states whose dot products do not grow with ``d``: sigmoids would saturate."""
    return hidden / hidden.shape[1] ** 0.25

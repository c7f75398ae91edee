"""Losses for pairs with a graded similarity: CoSENT, AnglE, regression on the cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, meta, unit, wide
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["AnglE", "CoSENT", "CosineRegression", "angle_similarity", "cosent", "scored_pairs"]


def scored_pairs(columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of a batch with their labels.

    A pair is a query with its positive, of which ``label`` tells the similarity. Hard negatives
    make further pairs: labelled ``1 - label``, where a query without a label counts as 1. Without
    positives, the labels are those of the negatives.

    Returns:
        ``(m, d)`` and ``(m, d)`` vectors, ``(m,)`` float labels.

    Raises:
        ConfigError: labels are missing or of another number than the pairs.
    """
    query = dense_of(columns.query)
    k = columns.negatives_per_query
    negatives = dense_of(columns.negative) if columns.negative is not None and k else None
    if columns.positive is None:
        if negatives is None:
            raise ConfigError("a batch of scored pairs needs a second text for every query")
        labels = wide(meta(columns, "label", "a ranking objective")).reshape(-1)
        left, right = query.repeat_interleave(k, dim=0), negatives
    elif negatives is None:
        labels = wide(meta(columns, "label", "a ranking objective")).reshape(-1)
        left, right = query, dense_of(columns.positive)
    else:
        label = columns.meta.get("label")
        known = query.new_ones(len(query)) if label is None else wide(label).reshape(-1)
        labels = torch.cat([known, (1 - known).repeat_interleave(k)])
        left = torch.cat([query, query.repeat_interleave(k, dim=0)])
        right = torch.cat([dense_of(columns.positive), negatives])
    if len(labels) != len(left):
        raise ConfigError(f"{len(left)} pairs carry {len(labels)} labels; give one a pair")
    return left, right, labels


def cosent(scores: Tensor, labels: Tensor) -> Tensor:
    """``log(1 + sum over y_i > y_j of exp(s_j - s_i))`` in O(m log m) (Su 2022; Huang et al. 2024).

    Sorted by label, the pairs above ``j`` are a suffix, so their ``exp(-s_i)`` are one suffix sum.

    Args:
        scores: ``(m,)`` already divided by the temperature.
        labels: ``(m,)``; equal labels are not ranked against each other.
    """
    labels, order = labels.sort()
    scores = scores[order]
    above = torch.searchsorted(labels, labels, right=True)
    suffix = torch.logcumsumexp(-scores.flip(0), dim=0).flip(0)
    suffix = torch.cat([suffix, suffix.new_full((1,), -torch.inf)])[above]
    # A pair with nothing above it is left out, which keeps -inf out of the gradient.
    ranked = (scores + suffix)[above < len(labels)]
    return torch.cat([ranked.new_zeros(1), ranked]).logsumexp(dim=0)


def angle_similarity(left: Tensor, right: Tensor) -> Tensor:
    """``|cos + sin|`` of the angle between complex vectors (AnglE, Li and Li 2024).

    Halves of a vector are real and imaginary parts; the quotient of two such vectors, divided by
    the ratio of their lengths, has the summed real part ``cos`` and imaginary part ``sin``. The
    sign follows the released code, as it differs from the paper's equation 3.

    Args:
        left, right: ``(m, d)``; an odd ``d`` is padded by one zero.
    """
    odd = left.shape[1] % 2
    x, y = F.pad(unit(left), (0, odd)), F.pad(unit(right), (0, odd))
    (a, b), (c, d) = x.chunk(2, dim=1), y.chunk(2, dim=1)
    return ((a * c + b * d) + (b * c - a * d)).sum(dim=1).abs()


@dataclass(frozen=True)
class CoSENT:
    """Rank the cosines of pairs as their labels are ranked; see :func:`cosent`."""

    temperature: float = 0.05

    name: ClassVar[str] = "cosent"

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """``(m,)`` scores of pairs."""
        return (unit(left) * unit(right)).sum(dim=1)

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """One ranking over the pairs of all processes."""
        left, right, labels = scored_pairs(columns)
        scores = self.similarity(left, right) / self.temperature
        shard = shard_of(len(scores), scores.device)
        return loss_of(self.name, cosent(gather(scores, shard), gather(labels, shard)))


@dataclass(frozen=True)
class AnglE(CoSENT):
    """CoSENT over :func:`angle_similarity`."""

    name: ClassVar[str] = "angle"

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """``(m,)`` scores of pairs."""
        return angle_similarity(left, right)


@dataclass(frozen=True)
class CosineRegression:
    """Mean squared error between the cosine of a pair and its label (SBERT, Reimers 2019)."""

    name: ClassVar[str] = "cosine"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over the pairs of all processes."""
        left, right, labels = scored_pairs(columns)
        cosines = (unit(left) * unit(right)).sum(dim=1)
        shard = shard_of(len(cosines), cosines.device)
        return loss_of(self.name, shard.mean((cosines - labels).square()))

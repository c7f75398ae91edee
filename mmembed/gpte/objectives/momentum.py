"""Contrast with the keys of a momentum encoder, between and within both sides (CoCoSoDa, MoCo)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import (
    dense_of,
    full_precision,
    learned_scale,
    loss_of,
    positive_of,
    shared,
    unit,
    wide,
)
from mmembed.gpte.objectives.contrastive import Direction
from mmembed.gpte.protocols import QUEUES, Columns, Loss

__all__ = ["MomentumContrast"]

_SIDES: dict[str, str] = {"q": "query", "d": "positive"}


@dataclass(frozen=True)
class MomentumContrast:
    """The mean over terms of ``-log softmax(a_i k_j / t)`` at ``j = i``.

    A term's anchors ``a`` are the encoder's vectors of one side, its candidates ``k`` the momentum
    encoder's of the whole batch, and then the queue of that side. With all four terms it is the
    loss of CoCoSoDa (Shi et al. 2023), with the two between sides the contrastive loss of CodeT5+
    (Wang et al. 2023), both up to a factor. It needs ``momentum.sides: both``.

    Attributes:
        temperature: cosines are divided by it; the start value if it is learned.
        learn_temperature: learn its logarithm.
        terms: ``q2d`` compares queries with the keys of positives, and so on.
    """

    temperature: float = 0.07
    learn_temperature: bool = False
    terms: tuple[Direction, ...] = ("q2d", "d2q", "q2q", "d2d")

    name: ClassVar[str] = "moco"

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not self.terms:
            raise ConfigError("moco: give a positive temperature and at least one term")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The logarithm of ``1 / temperature``, if it is learned."""
        return learned_scale(self.temperature, self.learn_temperature)

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' rows."""
        anchors = {
            "query": unit(dense_of(columns.query)),
            "positive": unit(dense_of(positive_of(columns))),
        }
        shard = shard_of(len(anchors["query"]), anchors["query"].device)
        own = torch.arange(shard.start, shard.start + shard.rows, device=anchors["query"].device)
        learned = {name: shared(columns, name, "moco") for name in self.parameters(1)}
        scale = wide(learned["log_scale"]).exp() if learned else 1.0 / self.temperature
        parts: dict[str, Tensor] = {}
        for term in self.terms:
            side, other = _SIDES[term[0]], _SIDES[term[-1]]
            if other not in columns.keys:
                raise ConfigError("moco compares both sides with keys: set momentum.sides: both")
            candidates = gather(unit(dense_of(columns.keys[other])).detach(), shard)
            queue = columns.shared.get(QUEUES[other])
            if queue is not None:
                candidates = torch.cat([candidates, queue.to(candidates)])
            logits = anchors[side] @ candidates.T * scale
            parts[term] = shard.mean(F.cross_entropy(logits, own, reduction="none"))
        return loss_of(self.name, torch.stack(list(parts.values())).mean(), parts)

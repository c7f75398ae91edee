"""Sentences against vectors of the entities they are about (EASE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, meta, shared, unit, wide
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["EntityContrast"]


@dataclass(frozen=True)
class EntityContrast:
    """Cross-entropy of a sentence's own entity among the batch's entities (Nishikawa et al. 2022).

    An entity's vector is learned beside the encoder, and ``tanh`` of a linear layer of it is
    compared with the sentence by cosine. The candidates are the entities of all sentences and all
    hard ones; the logit of a sentence's own hard entities is raised by ``hard_weight``. Another
    sentence's mention of the same entity is no negative, which the authors' code lets stand.

    Attributes:
        count: how many entities there are; their numbers are ``0 .. count - 1``.
        temperature: cosines are divided by it. The authors' script has 100, and weighs the loss by
            0.01 beside SimCSE's.
        hard_weight: added to the logits of a sentence's own hard entities.
    """

    count: int
    temperature: float = 100.0
    hard_weight: float = 1.0

    name: ClassVar[str] = "entities"

    def __post_init__(self) -> None:
        if self.count < 1 or not self.temperature > 0:
            raise ConfigError("entities: count is 1 or more, and temperature positive")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The entities' vectors ``(count, width)``, at random, and the layer over them."""
        return {
            "entity_vectors": 0.02 * torch.randn(self.count, width),
            "entity_weight": 0.02 * torch.randn(width, width),
            "entity_bias": torch.zeros(width),
        }

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' sentences.

        Raises:
            ConfigError: the data have no entities, or a number that is not below ``count``.
        """
        sentences = unit(dense_of(columns.query))
        own = meta(columns, "entities", "the contrast with entities")
        if own.numel() and int(own.max()) >= self.count:
            raise ConfigError(f"entity {int(own.max())} is named, and count is {self.count}")
        hard = own.shape[1] - 1
        shard = shard_of(len(sentences), sentences.device, same=hard)
        every = gather(own, shard)  # their vectors are the same on every process
        rows = torch.arange(len(sentences), device=own.device)
        mine = shard.start + rows
        logits = sentences @ self._vectors(columns, every[:, 0]).T / self.temperature
        same = own[:, :1] == every[:, 0]
        same[rows, mine] = False
        logits = logits.masked_fill(same, -torch.inf)
        if hard:
            more = sentences @ self._vectors(columns, every[:, 1:].flatten()).T / self.temperature
            raised = torch.zeros_like(more).view(len(rows), -1, hard)
            raised[rows, mine] = self.hard_weight
            more = more + raised.flatten(1)
            more = more.masked_fill(own[:, :1] == every[:, 1:].flatten(), -torch.inf)
            logits = torch.cat([logits, more], dim=1)
        return loss_of(self.name, shard.mean(F.cross_entropy(logits, mine, reduction="none")))

    def _vectors(self, columns: Columns, numbers: Tensor) -> Tensor:
        names = ("entity_vectors", "entity_weight", "entity_bias")
        table, weight, bias = (
            wide(shared(columns, n, "the contrast with entities")) for n in names
        )
        return unit(F.linear(table[numbers], weight, bias).tanh())

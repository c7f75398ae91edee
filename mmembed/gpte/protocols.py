"""What the trainer asks of an encoder and of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates

__all__ = ["QUEUES", "Columns", "Encoder", "Loss", "Objective", "Outputs", "TrainableEncoder"]

QUEUES: Mapping[str, Literal["queue", "query_queue"]] = {
    "positive": "queue",
    "query": "query_queue",
}
"""Where ``Columns.shared`` has a column's momentum queue."""


@dataclass(slots=True)
class Outputs:
    """What one forward gives for ``n`` rows; a field is None where its head was not asked for.

    Attributes:
        dense: ``(n, d)`` pooled vectors, not normalised (objectives normalise in float32).
        multi: ``(n, t, k)`` L2-normalised token vectors, zero where ``multi_mask`` is False.
        multi_mask: ``(n, t)`` bool, True on real tokens.
        sparse: ``(n, vocab)`` non-negative lexical weights.
        states: packed token states, for token-level objectives (MLM, RTD, NTP).
        routing: ``(n, layers, 2, experts)`` sums over a row's tokens of the routers' probabilities
            and choices, where the encoder has experts.
    """

    dense: Tensor | None = None
    multi: Tensor | None = None
    multi_mask: Tensor | None = None
    sparse: Tensor | None = None
    states: TokenStates | None = None
    routing: Tensor | None = None


class Encoder(Protocol):
    """Rows in, outputs out. Also an ``nn.Module``; per-row results never depend on the batch."""

    def collate(self, rows: Sequence[Row]) -> Any:
        """One batch of these rows on the model's device."""
        ...

    def __call__(self, batch: Any) -> Outputs: ...


class TrainableEncoder(nn.Module):
    """An encoder that the trainer can train and save; implements :class:`Encoder`.

    Attributes:
        full: the pretrained part, whose parameters learn at the model's own rate; everything else
            is new, and learns at ``head_lr``.
        dim: size of a dense vector.
    """

    full: nn.Module
    dim: int

    @property
    def device(self) -> torch.device:
        """Where batches have to be."""
        raise NotImplementedError

    @property
    def scale(self) -> Mapping[str, Tensor]:
        """What the model's pretraining learned of its objective: ``log_scale``, ``bias``."""
        return {}

    def collate(self, rows: Sequence[Row]) -> Any:
        """One batch of these rows on the model's device."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that stands alone, or leave what was there."""
        raise NotImplementedError


@dataclass(slots=True)
class Columns:
    """One encoded training batch on this process: ``n`` queries and what belongs to them.

    Attributes:
        query: outputs of the ``n`` queries (anchors).
        positive: outputs of the ``n`` positives, or None for pair-scored data in ``negative`` form.
        negative: outputs of ``n * negatives_per_query`` hard negatives, those of query 0 first.
        meta: per-row tensors by name: ``"query_hash"``, ``"positive_hash"``, ``"negative_hash"``
            (int64 content hashes), ``"label"`` (float similarity), ``"teacher"`` (``(n, 1 + k)``
            teacher scores), ``"entities"`` (``(n, 1 + h)`` int64: the query's entity, then hard
            ones), ``"modality"`` (int64 bitmask) and whatever an objective documents.
        guide: outputs of a frozen guide model for the same columns, by column name.
        shared: tensors that belong to no row and are the same on every process: the objective's
            own learned parameters by name, ``"queue"`` ``(q, d)`` and ``"queue_hash"`` ``(q,)``
            (a momentum queue's keys of positives), ``"query_queue"`` and ``"query_queue_hash"``
            (those of queries, where it keeps them), ``"step"`` (0-d, for schedules inside an
            objective).
        keys: outputs of the momentum encoder, by column, for what it reads.
    """

    query: Outputs
    positive: Outputs | None = None
    negative: Outputs | None = None
    negatives_per_query: int = 0
    meta: Mapping[str, Tensor] = field(default_factory=dict)
    guide: Mapping[str, Outputs] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    keys: Mapping[str, Outputs] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loss:
    """A scalar to minimise and its parts.

    Attributes:
        total: 0-d float32 tensor with gradient. Under W processes, the mean of the W gradients
            equals the gradient of one process that holds the whole batch.
        parts: detached 0-d tensors before weighting, for the log.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A frozen dataclass of hyperparameters whose call is a pure function of the columns."""

    def __call__(self, columns: Columns) -> Loss: ...

"""The contract between a reranker and one kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem

__all__ = ["Pair", "PairScorer"]

Pair: TypeAlias = tuple[DecodedItem, DecodedItem]
"""A query and a document."""


class PairScorer(Protocol):
    """A model over pairs; also an ``nn.Module``. Its scores never depend on a pair's neighbours."""

    @property
    def media_budget(self) -> MediaBudget: ...

    @property
    def instruction(self) -> str:
        """What the model is told to judge by where the user says nothing; ``""`` for nothing."""
        ...

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        """Preprocess on the CPU, thread-safe.

        Raises:
            InputError: a pair cannot fit or be read; ``position`` is its index here.
        """
        ...

    def collate(self, rows: Sequence[Row]) -> Any: ...

    def __call__(self, batch: Any) -> Tensor:
        """``(n,)`` logits: higher is a better match, and their sigmoid a probability."""
        ...

    def save_pretrained(self, folder: str) -> None: ...

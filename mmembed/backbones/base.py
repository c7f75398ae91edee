"""The contract between the embedder (or a trainer) and one model family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem
from mmembed.inputs.items import Modality

__all__ = ["Backbone", "MediaBudget", "Row"]


@runtime_checkable
class Backbone(Protocol):
    """A model family: prompt, preprocess, batch, forward. About 60 lines each.

    A backbone is also an ``nn.Module``, with ``to``, ``eval``, ``parameters`` and ``state_dict``.
    """

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the model reads."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of its token states."""
        ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def media_budget(self) -> MediaBudget:
        """How much of each medium is decoded for it."""
        ...

    @property
    def lora_targets(self) -> str:
        """Regular expression of module names that LoRA adapts, tested against the real model."""
        ...

    @property
    def prompts(self) -> Mapping[str, str]:
        """What the model was trained to read before an input, by role (``""`` for none)."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        ...

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        """Preprocess on CPU, thread-safe. Text is cut to fit, media tokens never are.

        Raises:
            InputError: an item cannot fit, with the numbers; ``position`` is its index here.
        """
        ...

    def collate(self, rows: Sequence[Row]) -> Any:
        """One batch of these rows, on the model's device."""
        ...

    def forward(self, batch: Any) -> TokenStates:
        """Token states of the batch, rows in order."""
        ...

    def save_pretrained(self, folder: str) -> None: ...


def module_of(backbone: Backbone) -> nn.Module:
    """The backbone as the torch module that it is."""
    assert isinstance(backbone, nn.Module)
    return backbone

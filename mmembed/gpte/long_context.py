"""Let a model read more positions than it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["positions_of"]


def positions_of(model: PreTrainedModel) -> int | None:
    """How many tokens a row may have, or None where only memory limits it.

    A learned table counts by its rows, less those that the RoBERTa family never uses.
    """
    table = _table_of(model)
    if table is not None:
        return table.num_embeddings - _unused(table)
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None


def _table_of(model: PreTrainedModel) -> nn.Embedding | None:
    """The learned table of absolute positions, if the model has one."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _unused(table: nn.Embedding) -> int:
    """Rows at the start that belong to padding: positions begin behind ``padding_idx``."""
    return 0 if table.padding_idx is None else table.padding_idx + 1

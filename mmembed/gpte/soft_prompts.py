"""Soft prompts: learned keys and values ahead of every row, over a frozen model (PromCSE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmembed.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["SoftPrefix"]


class SoftPrefix(nn.Module):
    """Deep prefix of every attention layer (P-tuning v2; PromCSE, Jiang et al. 2022).

    Needs a model that runs packed. Rows take the positions behind the prefix, as they do in both
    papers' code. Freeze the model to train the prefix alone.

    Args:
        model: the model that will read it.
        tokens: length of the prefix; PromCSE takes 16.

    Raises:
        ConfigError: the model's attention layers carry no ``layer_idx`` to find their share by.
    """

    def __init__(self, model: PreTrainedModel, tokens: int) -> None:
        super().__init__()
        config = model.config
        layers = config.num_hidden_layers
        found = {getattr(module, "layer_idx", None) for module in model.modules()}
        if not found.issuperset(range(layers)):
            raise ConfigError(f"{type(model).__name__} does not number its attention layers")
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.weight = nn.Parameter(torch.empty(layers, 2, kv_heads, tokens, head_dim))
        nn.init.normal_(self.weight, std=getattr(config, "initializer_range", 0.02))

    def forward(self) -> tuple[Tensor, ...]:
        """For every layer ``(2, kv_heads, tokens, head_dim)`` keys and values."""
        return self.weight.unbind(0)

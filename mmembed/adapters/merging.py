"""Folding adapters into the base weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from mmembed.adapters.layer import BIAS, RoutedLinear
from mmembed.errors import ConfigError

__all__ = ["check_mergeable", "merge_into_base"]


def check_mergeable(layer: RoutedLinear, name: str, weight: float) -> None:
    """Raise unless an adapter can be folded into this layer with this weight.

    Raises:
        ConfigError: a number is not finite, or the adapter has a bias where the base has none.
    """
    if not math.isfinite(weight):
        raise ConfigError(f"adapter {name!r}: its weight {weight} is not finite")
    parts = layer.tensors(name)
    for part, tensor in parts.items():
        if not bool(tensor.isfinite().all()):
            raise ConfigError(f"adapter {name!r}: {layer.name}.{part} is not finite")
    if BIAS in parts and layer.base_layer.bias is None:
        raise ConfigError(f"adapter {name!r}: {layer.name} has no bias to merge {BIAS} into")


@torch.no_grad()
def merge_into_base(layer: RoutedLinear, weights: Mapping[str, float]) -> None:
    """``W + sum_i weight_i change_i``, summed in float32 and rounded once to the type of ``W``."""
    base: Any = layer.base_layer
    changes = [(w, layer.change(name)) for name, w in weights.items() if name in layer.lora_A]
    base.weight.copy_(base.weight.float() + sum(w * delta for w, (delta, _) in changes))
    biases = [w * bias for w, (_, bias) in changes if bias is not None]
    if biases:
        base.bias.copy_(base.bias.float() + sum(biases))

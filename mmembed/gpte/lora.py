"""LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024) through peft, merged in float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.errors import ConfigError

__all__ = ["add_lora", "merge_lora", "merged_state_dict"]

_NAME = "default"


def add_lora(
    model: nn.Module,
    rank: int = 16,
    alpha: float | None = None,
    *,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
    dora: bool = False,
) -> None:
    """Freeze the model and add trainable low-rank adapters to it, in place.

    Adapters are float32 even over bfloat16 weights, whose step is too coarse for their updates.

    Args:
        model: a transformers model.
        rank: rank of the adapters.
        alpha: their scale times the rank; twice the rank by default.
        dropout: dropout on their input.
        targets: module names, a regular expression of full names, or ``"all-linear"``.
        dora: also learn the magnitude of each output.

    Raises:
        ConfigError: no module matches the targets, or there are adapters already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if _layers(model):
        raise ConfigError("the model has adapters already: merge them first")
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=dora,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    except ValueError as error:
        raise ConfigError(f"LoRA targets {targets!r}: {error}") from error
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Fold the adapters into the weights, in place; the plain modules come back, all trainable."""
    for name, layer in _layers(model).items():
        parent, _, child = name.rpartition(".")
        base = layer.get_base_layer()
        base.weight.data.copy_(_merged_weight(layer))
        setattr(model.get_submodule(parent), child, base)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as if the adapters were merged; the model is not touched."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for name, layer in _layers(model).items():
        inside = [key for key in state if key.startswith(f"{name}.")]
        kept = {
            key.removeprefix(f"{name}.base_layer."): state[key]
            for key in inside
            if key.startswith(f"{name}.base_layer.")
        }
        for key in inside:
            del state[key]
        state.update({f"{name}.{key}": value for key, value in kept.items()})
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = _merged_weight(layer).to(weight.dtype)
    return state


def _layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }


def _merged_weight(layer: Any) -> Tensor:
    """The layer's weight with its adapters folded in, float32."""
    twin = copy.deepcopy(layer).float()
    twin.merge()
    weight: Tensor = twin.get_base_layer().weight
    return weight

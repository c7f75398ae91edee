"""New adapter layers, made beside the model, so that the model changes only when all is ready."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import Tensor, nn

from mmembed.adapters.layer import MAGNITUDE, RoutedLinear
from mmembed.adapters.naming import View, plain_modules
from mmembed.errors import ConfigError

__all__ = ["Layers", "Prepared", "Tensors", "blank_layers", "fresh_layers", "regex_of"]

# Adapter layers by the name of the layer that they adapt, and their tensors by name and part.
Layers = dict[str, RoutedLinear]
Tensors = Mapping[tuple[str, str], Tensor]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that is ready to go into the model.

    Attributes:
        config: peft's.
        view: how the config names the backbone's modules.
        layers: by the backbone's names.
    """

    config: LoraConfig
    view: View
    layers: Layers


def regex_of(names: list[str]) -> str:
    """Matches exactly these module names."""
    return "|".join(re.escape(name) for name in sorted(names))


def fresh_layers(
    backbone: nn.Module, config: LoraConfig, names: Mapping[str, str], adapter: str, targets: str
) -> Layers:
    """Untrained layers of a new adapter, which change nothing yet.

    Args:
        backbone: the model; not touched.
        config: says which layers, and of what kind.
        names: from the backbone's module names to the names that ``config`` uses.
        adapter: the adapter's name.
        targets: backbone names that match lie as the rows do, see :attr:`RoutedLinear.by_rows`.

    Raises:
        ConfigError: the config matches nothing, or a layer that is not linear.
    """
    layers = _injected(backbone, config, names, adapter, targets, meta=False)
    for layer in layers.values():
        parts = dict(layer.tensors(adapter))
        if MAGNITUDE in parts:
            # peft takes the norm in the base's type: too coarse in bfloat16 for a start at zero.
            weight = layer.base_layer.weight.detach().float()
            lengths = torch.linalg.norm(weight.T if layer.fan_in_fan_out else weight, dim=1)
            parts[MAGNITUDE] = nn.Parameter(lengths)
        layer.put(adapter, parts)
    return layers


def blank_layers(
    backbone: nn.Module, config: LoraConfig, names: Mapping[str, str], adapter: str, targets: str
) -> Layers:
    """As :func:`fresh_layers`, but without memory: the tensors are still to be put in."""
    return _injected(backbone, config, names, adapter, targets, meta=True)


def _injected(
    backbone: nn.Module,
    config: LoraConfig,
    names: Mapping[str, str],
    adapter: str,
    targets: str,
    *,
    meta: bool,
) -> Layers:
    skeleton = _skeleton(backbone, names)
    try:
        # Not peft's low_cpu_mem_usage, which patches torch.nn.Module for all threads meanwhile.
        with torch.device("meta") if meta else nullcontext():
            inject_adapter_in_model(config, skeleton, adapter)
    except ValueError as error:
        raise ConfigError(f"adapter {adapter!r}: {error}") from error
    layers: Layers = {}
    aligned = getattr(backbone, "by_rows", True)  # some backbones read some rows each
    for name, named in names.items():
        layer: Any = skeleton.get_submodule(named)
        if type(layer) is lora.Linear:
            by_rows = aligned and re.fullmatch(targets, name) is not None
            layers[name] = RoutedLinear.of(layer, name, by_rows=by_rows)
        elif isinstance(layer, lora.LoraLayer):
            kind = type(layer.get_base_layer()).__name__
            raise ConfigError(
                f"adapter {adapter!r}: {name} is a {kind}, and adapters go on linear layers only"
            )
    return layers


def _skeleton(backbone: nn.Module, names: Mapping[str, str]) -> nn.Module:
    """A tree of the named modules that shares the leaves' weights and nothing else, for peft to
    look at and to change."""
    modules = plain_modules(backbone)
    root = nn.Module()
    for name, named in names.items():
        parent = root
        *path, last = named.split(".")
        for step in path:
            if step not in parent._modules:
                parent.add_module(step, nn.Module())
            parent = parent.get_submodule(step)
        module = modules[name]
        if not any(True for _ in module.children()):
            module = _stub(module)
        elif last in parent._modules:
            continue
        else:
            module = nn.Module()
        parent.add_module(last, module)
    return root


def _stub(module: nn.Module) -> nn.Module:
    """The same leaf with parameters of its own over the same memory, so that peft can freeze it."""
    stub = copy.copy(module)
    stub._parameters = {
        key: None if value is None else nn.Parameter(value.detach(), requires_grad=False)
        for key, value in module._parameters.items()
    }
    return stub

"""From adapter folders to layers for a backbone, checked tensor by tensor, and back."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor, nn

from mmembed.adapters.building import (
    Prepared,
    Tensors,
    blank_layers,
    regex_of,
)
from mmembed.adapters.files import read_adapter, write_adapter
from mmembed.adapters.naming import View, common_root, places_of, plain_modules, roots_of
from mmembed.errors import ConfigError, ModelLoadError

__all__ = ["filled", "read_prepared", "write_prepared"]


def read_prepared(
    backbone: nn.Module,
    folder: Path,
    name: str,
    lora_targets: str,
    *,
    targets: str | None = None,
    key_mapping: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> Prepared:
    """The adapter in a folder, ready to be put into the backbone, which is not touched.

    Args:
        lora_targets: of the backbone.
        targets, key_mapping, leave_out: see :meth:`mmembed.adapters.TaskAdapters.load`.

    Raises:
        ModelLoadError: a file or tensor is missing, has no place, or has another shape, or the
            adapter is for another kind of model.
    """
    config, everything = read_adapter(folder, name, key_mapping or {})
    found = {key: tensor for key, tensor in everything.items() if key[0] not in leave_out}
    _check_base(backbone, config, folder)
    view, places = places_of(backbone, {layer for layer, _ in found}, str(folder))
    tensors = {(places[layer], part): tensor for (layer, part), tensor in found.items()}
    if targets is not None:
        names = view.names(plain_modules(backbone))
        config.target_modules = regex_of(
            [n for one, n in names.items() if re.fullmatch(targets, one)]
        )
    return filled(backbone, config, view, name, lora_targets, tensors, str(folder))


def filled(
    backbone: nn.Module,
    config: LoraConfig,
    view: View,
    name: str,
    lora_targets: str,
    tensors: Tensors,
    source: str,
) -> Prepared:
    """Layers with these tensors, once every tensor is known to have its place and shape.

    Raises:
        ModelLoadError: names the tensor that is missing, has no place, or has another shape.
    """
    config = copy.deepcopy(config)  # peft completes it
    names = view.names(plain_modules(backbone))
    try:
        layers = blank_layers(backbone, config, names, name, lora_targets)
    except ConfigError as error:
        raise ModelLoadError(f"{source}: {error}") from error
    wanted = {
        (one, part): tuple(tensor.shape)
        for one, layer in layers.items()
        for part, tensor in layer.tensors(name).items()
    }
    problems = {
        "is missing": wanted.keys() - tensors.keys(),
        "has no place by the config": tensors.keys() - wanted.keys(),
    }
    for what, keys in problems.items():
        if keys:
            layer, part = min(keys)
            key = f"{names.get(layer, layer)}.{part}"
            raise ModelLoadError(f"{source}: tensor {key!r} {what} ({len(keys)} in all)")
    for (one, part), shape in wanted.items():
        if (found := tuple(tensors[one, part].shape)) != shape:
            key = f"{names[one]}.{part}"
            raise ModelLoadError(f"{source}: tensor {key!r} has shape {found}, not {shape}")
    for (one, part), tensor in tensors.items():
        layers[one].put(name, {part: tensor})
    return Prepared(config, view, layers)


def write_prepared(
    backbone: nn.Module, folder: Path, name: str, config: LoraConfig, layers: Sequence[str]
) -> None:
    """Write an adapter of the backbone as peft does, for the transformers model inside it."""
    root = common_root(backbone, layers)
    model: Any = backbone.get_submodule(root)
    names = View(root).names(plain_modules(backbone))
    adapted: dict[str, Any] = {names[one]: backbone.get_submodule(one) for one in layers}
    tensors: dict[tuple[str, str], Tensor] = {
        (one, part): tensor
        for one, layer in adapted.items()
        for part, tensor in layer.tensors(name).items()
    }
    config = copy.deepcopy(config)
    # Patterns may be by another model's names: say the same by the names of this one.
    config.target_modules = _targets_of(set(adapted), set(names.values()))
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern = _differing({k: m.r[name] for k, m in adapted.items()}, config.r)
    alphas = {key: module.lora_alpha[name] for key, module in adapted.items()}
    config.alpha_pattern = _differing(alphas, config.lora_alpha)
    config.inference_mode = True
    kind = type(model)
    config.auto_mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    known_as = getattr(model, "name_or_path", "")
    if known_as and not Path(known_as).exists():  # a folder of this machine means nothing elsewhere
        config.base_model_name_or_path = known_as
    write_adapter(folder, config, tensors)


def _check_base(backbone: nn.Module, config: LoraConfig, folder: Path) -> None:
    made_for = config.auto_mapping or {}
    library = made_for.get("parent_library") or ""
    # Classes from elsewhere wrap models of transformers: there the tensors must tell.
    ours = {type(model).__module__: type(model) for model in roots_of(backbone).values()}
    if library.startswith("transformers.") and library not in ours:
        have = ", ".join(sorted(kind.__name__ for kind in ours.values())) or "none"
        raise ModelLoadError(
            f"{folder}: the adapter is for a {made_for.get('base_model_class')}, and this model "
            f"has: {have}"
        )


def _targets_of(adapted: set[str], everything: set[str]) -> set[str]:
    """Last names, as people write them, where they mean exactly these layers; else full names."""
    short = {name.rpartition(".")[2] for name in adapted}
    meant = {name for name in everything if name.rpartition(".")[2] in short}
    return short if meant == adapted else adapted


def _differing(values: Mapping[str, float], usual: float) -> dict[str, Any]:
    return {re.escape(name): value for name, value in values.items() if value != usual}

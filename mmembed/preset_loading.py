"""Loading published checkpoints by their presets: backbone, heads and adapters in their places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed.backbones.towers.loading import load_towers
from mmembed.backbones.vlm.checkpoint import head_tensors, model_config
from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.backbones.weights import load_exactly, read_json
from mmembed.embedder import Embedder, heads_for
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.text_loading import hub_folder
from mmembed.presets import Preset

__all__ = ["load_preset"]

_ADAPTER_CONFIG = "adapter_config.json"


def load_preset(
    folder: Path,
    preset: Preset,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Embedder:
    """The checkpoint in a folder, read by a preset's conventions.

    A folder that holds only an adapter in peft's format is merged, in float32, into the model that
    its ``base_model_name_or_path`` names.

    Args:
        name: what the embedder is called.

    Raises:
        ModelLoadError: a file or tensor is missing, has no place or another shape, or the
            checkpoint is of another kind than the preset's; the message names it.
        ConfigError: the preset is of a reranker.
    """
    adapted = (folder / _ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()
    base = _base_of(folder) if adapted else folder
    kind = model_config(base, replace(preset.layout, model_type="")).get("model_type")
    if kind not in preset.model_types:
        raise ModelLoadError(
            f"{base}: model_type is {kind!r}, and preset {preset.name!r} is for "
            f"{', '.join(preset.model_types)}: give the right preset, or preset='none'"
        )
    if preset.yes_no is not None:
        raise ConfigError(f"{name} is a reranker: load it by Reranker.from_pretrained")
    if preset.towers is not None:
        towers = load_towers(base, preset.towers, dtype=dtype).to(device)
        return Embedder(towers, preset.embedder, name=name)
    backbone = load_vision_language(base, preset.vlm, layout=preset.layout, dtype=dtype)
    heads = heads_for(backbone, preset.embedder)
    if heads.state_dict():
        tensors = head_tensors(base, preset.layout)
        for task in preset.embedder.multi_tasks:
            tensors |= _task_head(folder / preset.adapters, task, preset, tensors)
        load_exactly(heads, tensors, str(base))
    backbone.to(device)
    model = Embedder(backbone, preset.embedder, heads=heads.to(device), name=name)
    if adapted:
        _merge_adapter(model, folder, preset)
    if preset.adapters:
        source = folder / preset.adapters
        for task in preset.tasks:
            model.adapters.load(source, task, **_options(model, preset))
    return model


def _base_of(folder: Path) -> Path:
    named = read_json(folder / _ADAPTER_CONFIG).get("base_model_name_or_path")
    if not named:
        raise ModelLoadError(f"{folder / _ADAPTER_CONFIG}: 'base_model_name_or_path' is missing")
    return hub_folder(named)


def _options(model: Embedder, preset: Preset) -> dict[str, Any]:
    targets = preset.layout.adapter_targets or model.backbone.lora_targets
    return {
        "targets": targets,
        "key_mapping": preset.layout.rename,
        "leave_out": tuple(preset.layout.heads),
    }


def _merge_adapter(model: Embedder, folder: Path, preset: Preset) -> None:
    model.adapters.load(folder, "published", **_options(model, preset))
    model.adapters.merge("published")
    changed = _head_changes(folder, "published", preset)
    for name, change in changed.items():
        weight = model.heads.get_parameter(name)
        with torch.no_grad():
            weight.copy_(_sum(weight, change, f"{folder}: {name}"))


def _task_head(
    folder: Path, task: str, preset: Preset, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The projection of one task: the shared one with the task's change."""
    changes = _head_changes(folder, task, preset)
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("multi."):
            change = changes.get(name)
            own = tensor if change is None else _sum(tensor, change, f"{folder}: {task}: {name}")
            found[f"task_multi.{task}.{name.removeprefix('multi.')}"] = own
    if not changes:
        raise ModelLoadError(f"{folder}: adapter {task!r} has no layer of a head")
    return found


def _head_changes(folder: Path, adapter: str, preset: Preset) -> dict[str, Tensor]:
    """What an adapter adds to the heads' weights, float32, by their names here.

    Raises:
        ModelLoadError: a tensor of such a layer is missing or unknown.
    """
    from mmembed.adapters.files import read_adapter
    from mmembed.adapters.layer import DOWN, UP

    config, tensors = read_adapter(folder, adapter, preset.layout.rename)
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    found = {}
    for theirs, ours in preset.layout.heads.items():
        parts = {part: tensor for (layer, part), tensor in tensors.items() if layer == theirs}
        if parts and set(parts) != {DOWN, UP}:
            have = ", ".join(sorted(parts))
            raise ModelLoadError(f"{folder}: {theirs}: expected {DOWN} and {UP}, found {have}")
        if parts:
            found[f"{ours}.weight"] = scale * (parts[UP].float() @ parts[DOWN].float())
    return found


def _sum(weight: Tensor, change: Tensor, where: str) -> Tensor:
    if change.shape != weight.shape:
        raise ModelLoadError(
            f"{where}: its change has shape {tuple(change.shape)}, not {tuple(weight.shape)}"
        )
    return (weight.float() + change.to(weight.device)).to(weight.dtype)

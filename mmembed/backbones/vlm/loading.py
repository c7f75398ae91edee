"""Loading vision-language backbones from folders; every tensor finds its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmembed.backbones.vlm.families import families
from mmembed.backbones.vlm.model import SETTINGS_NAME, VisionLanguage, VlmSettings
from mmembed.backbones.weights import read_json
from mmembed.errors import ModelLoadError
from mmembed.gpte.text_loading import quiet_transformers

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
    dtype: torch.dtype | None = None,
) -> VisionLanguage:
    """The backbone in a folder: one that was saved here, or a plain transformers checkpoint.

    Args:
        settings: used in place of the folder's own and the family's.
        dtype: type of the weights; that of the checkpoint on a GPU and float32 on a CPU by default.

    Raises:
        ModelLoadError: no family reads this checkpoint, or a file or tensor is missing, has no
            place, or has another shape; the message names it.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    family = family_of(read_json(folder / "config.json"))
    if family is None:
        kind = read_json(folder / "config.json").get("model_type")
        known = sorted(name for family in families() for name in family.model_types)
        raise ModelLoadError(
            f"{folder}: no vision-language family reads model_type {kind!r} "
            f"(known: {', '.join(known)})"
        )
    if settings is None:
        saved = folder / SETTINGS_NAME
        settings = VlmSettings.from_dict(read_json(saved)) if saved.exists() else family.defaults
    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder,
                dtype=dtype or torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
            # One backend everywhere: vectors must not change with an unrelated installation.
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    _check(report, folder)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and limit < settings.max_tokens:
        settings = replace(settings, max_tokens=int(limit))
    return family(model.eval(), tokenizer, processor, settings).eval()


def _check(report: dict[str, Any], folder: Path) -> None:
    problems = {
        "is missing": report["missing_keys"],
        "has no place": [k for k in report["unexpected_keys"] if not k.startswith(_LEFT_OUT)],
        "has another shape": [key for key, *_ in report["mismatched_keys"]],
    }
    for what, keys in problems.items():
        if keys:
            names = sorted(keys)
            raise ModelLoadError(f"{folder}: tensor {names[0]} {what} ({len(names)} in all)")

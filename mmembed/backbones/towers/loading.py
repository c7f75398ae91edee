"""Loading two towers from folders; every tensor finds its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmembed.backbones.towers.families import tower_families
from mmembed.backbones.towers.model import TowerSettings
from mmembed.backbones.towers.transformers_towers import SETTINGS_NAME, TransformersTowers
from mmembed.backbones.weights import read_json
from mmembed.errors import ModelLoadError
from mmembed.gpte.text_loading import quiet_transformers

__all__ = ["load_towers", "tower_family_of"]


def tower_family_of(config: dict[str, Any]) -> type[TransformersTowers] | None:
    """The family that reads checkpoints with this ``config.json``, or None."""
    kind = config.get("model_type")
    return next((family for family in tower_families() if kind in family.model_types), None)


def load_towers(
    folder: Path, settings: TowerSettings | None = None, *, dtype: torch.dtype | None = None
) -> TransformersTowers:
    """The two towers in a folder: saved here, or a plain transformers checkpoint.

    Args:
        settings: used in place of the folder's own and the family's.
        dtype: type of the weights; float32 by default.

    Raises:
        ModelLoadError: no family reads this checkpoint, or a file or tensor is missing, has no
            place, or has another shape; the message names it.
    """
    import transformers

    described = read_json(folder / "config.json")
    family = tower_family_of(described)
    if family is None:
        known = sorted(name for family in tower_families() for name in family.model_types)
        raise ModelLoadError(
            f"{folder}: no two-tower family reads model_type {described.get('model_type')!r} "
            f"(known: {', '.join(known)})"
        )
    if settings is None:
        saved = folder / SETTINGS_NAME
        settings = TowerSettings(**read_json(saved)) if saved.exists() else family.defaults
    try:
        with quiet_transformers():
            model, report = getattr(transformers, family.architecture).from_pretrained(
                folder,
                dtype=dtype or torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            # One backend everywhere: vectors must not change with an unrelated installation.
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    problems = {
        "is missing": report["missing_keys"],
        "has no place": [
            key
            for key in report["unexpected_keys"]
            # Counts of positions, which old checkpoints keep among their weights.
            if not key.startswith(family.left_out) and not key.endswith("position_ids")
        ],
        "has another shape": [key for key, *_ in report["mismatched_keys"]],
    }
    for what, keys in problems.items():
        if keys:
            names = sorted(keys)
            raise ModelLoadError(f"{folder}: tensor {names[0]} {what} ({len(names)} in all)")
    return family(model.eval(), tokenizer, processor, settings).eval()

"""Inputs of the models' own forward passes; the tiny models are in mmembed.backbones.vlm.tiny.

A new family adds its builder there, and here what its own padded forward reads beside ids, mask and
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmembed.backbones.vlm.tiny import TINY, WIDTH

__all__ = ["ALONE", "REFERENCE", "TINY", "WIDTH"]


def _kinds(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    config = backbone.model.config
    kinds = (ids == config.image_token_id) + 2 * (ids == config.video_token_id)
    return {"mm_token_type_ids": kinds.int()}


def _kinds_and_times(
    backbone: Any, ids: torch.Tensor, rows: Sequence[Any]
) -> dict[str, torch.Tensor]:
    times = [row.extras["second_per_grid_ts"] for row in rows if "second_per_grid_ts" in row.extras]
    return {**_kinds(backbone, ids, rows), "second_per_grid_ts": torch.cat(times)}


def _one_clip(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, Any]:
    (row,) = rows
    if "frame_counts" not in row.extras:
        return {}
    return {"pixel_values_videos": row.extras["pixel_values_videos"][None], "frame_counts": None}


# Families whose own forward does not take clips of different lengths together.
ALONE = {"llava_onevision"}

# What the model's own padded forward reads beside ids, mask and pixels: positions are left to it.
REFERENCE: dict[str, Callable[[Any, torch.Tensor, Sequence[Any]], dict[str, torch.Tensor]]] = {
    "llava_onevision": _one_clip,
    "qwen2_vl": _kinds,
    "qwen2_5_vl": _kinds_and_times,
    "qwen3_vl": _kinds,
}

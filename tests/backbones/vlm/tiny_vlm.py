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


def _kinds(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, Any]:
    config = backbone.model.config
    kinds = (ids == config.image_token_id) + 2 * (ids == config.video_token_id)
    media = backbone.media_arguments(backbone.media_inputs(rows))
    pixels = {name: values for name, values in media.items() if name.startswith("pixel_values")}
    return {"mm_token_type_ids": kinds.int(), **pixels}


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


def _prompt(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    return {"token_type_ids": torch.zeros_like(ids)}


def _image_tokens(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    return {"token_type_ids": (ids == backbone.model.config.image_token_id).long()}


def _looks(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, Any]:
    """Every token from an image's own on sees the image, on either side of the padding."""
    (row,) = rows
    if "num_tiles" not in row.extras:
        return {}
    tiles = row.extras["num_tiles"].tolist()
    seen = torch.zeros(1, ids.shape[1], len(tiles), row.extras["aspect_ratio_mask"].shape[1])
    where = (ids[0] == backbone.model.config.image_token_id).nonzero().flatten().tolist()
    for image, (start, count) in enumerate(zip(where, tiles, strict=True)):
        seen[0, start:, image, :count] = 1
    return {"cross_attention_mask": seen.long()}


def _tiles(backbone: Any, ids: torch.Tensor, rows: Sequence[Any]) -> dict[str, Any]:
    media = backbone.media_inputs(rows)
    return {**dict.fromkeys(media), **backbone.media_arguments(media)}


# Families whose own forward does not take clips of different lengths together, or lets rows without
# images see the padding of those with some.
ALONE = {"llava_onevision", "mllama"}

# What the model's own padded forward reads beside ids, mask and pixels: positions are left to it.
REFERENCE: dict[str, Callable[[Any, torch.Tensor, Sequence[Any]], dict[str, torch.Tensor]]] = {
    "gemma3": _image_tokens,
    "llava_onevision": _one_clip,
    "mllama": _looks,
    "paligemma": _prompt,
    "phi4_multimodal": _tiles,
    "qwen2_vl": _kinds,
    "qwen2_5_vl": _kinds_and_times,
    "qwen3_5": _kinds,
    "qwen3_vl": _kinds,
}

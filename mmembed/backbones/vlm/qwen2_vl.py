"""Qwen2-VL (Wang et al. 2024): native resolution, rotary positions in time, height and width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.qwen_vision import PatchProjection, QwenPixels
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["IMAGE", "VIDEO", "WORDING", "Qwen2VL"]

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
WORDING = Wording(
    templates={
        "default": "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}"
        "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    },
    image="<|vision_start|>{visual}<|vision_end|>",
    video="<|vision_start|>{visual}<|vision_end|>",
    between="",
)
_ROLES = ("", "query", "document")
INSTRUCTIONS = dict.fromkeys(_ROLES, "You are a helpful assistant.")


class Qwen2VL(VisionLanguage):
    """Qwen2-VL; its prompt is the checkpoint's chat with an empty answer and an end token."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    defaults: ClassVar = VlmSettings(
        wording=WORDING,
        instructions=INSTRUCTIONS,
        min_pixels=4 * 28 * 28,
        max_pixels=1280 * 28 * 28,
        max_frame_pixels=256 * 28 * 28,
        max_clip_tokens=7680,
    )

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, settings: VlmSettings | None = None
    ) -> None:
        super().__init__(model, tokenizer, processor, settings)
        limits = self.settings
        self.pixels = QwenPixels(
            processor,
            limits.min_pixels,
            limits.max_pixels,
            limits.max_frame_pixels,
            limits.min_frame_pixels,
            limits.max_clip_tokens,
        )
        self.model.visual.patch_embed.proj.__class__ = PatchProjection

    @property
    def placeholders(self) -> Mapping[str, int]:
        config = self.model.config
        return {IMAGE: config.image_token_id, VIDEO: config.video_token_id}

    def image(self, image: PILImage) -> Visual:
        patches, grid, tokens = self.pixels.image(image)
        tensors = {"pixel_values": patches, "image_grid_thw": grid}
        return Visual(IMAGE, (tokens,), tensors, boxes=self.pixels.boxes(grid))

    def video(self, frames: Frames) -> Visual:
        patches, grid, tokens = self.pixels.clip(frames)
        tensors = {"pixel_values_videos": patches, "video_grid_thw": grid}
        return Visual(VIDEO, (tokens,), tensors, kind="video")

    def media_arguments(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        """Patches as numbers, which they become on the model's own device."""
        return {
            name: self.pixels.values(given, self.model.dtype) if "pixel" in name else given
            for name, given in media.items()
        }

    def placed(self, row: Row, media: Mapping[str, Tensor]) -> Tensor:
        """``(3, tokens)``: where each token stands in time, height and width."""
        if not media or self.settings.flat_positions:
            return torch.arange(row.tokens).expand(3, -1)
        ids = torch.tensor([row.input_ids])
        config = self.model.config
        kinds = (ids == config.image_token_id) + 2 * (ids == config.video_token_id)
        grids = {name: grid for name, grid in media.items() if name.endswith("grid_thw")}
        found, _ = self.model.get_rope_index(ids, kinds.int(), **grids, **self.timing(media))
        positions: Tensor = found[:, 0]
        return positions

    def timing(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        """What else the positions depend on."""
        return {}

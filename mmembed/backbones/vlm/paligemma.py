"""PaliGemma 1 and 2 (Beyer et al. 2024; Steiner et al. 2024): the prompt reads both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.vlm.model import VisionLanguage, VlmBatch
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual, grid_boxes
from mmembed.backbones.vlm.wording import Wording
from mmembed.gpte.rows import Row

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["PaliGemma"]

_TOKEN = "<image>"


class PaliGemma(VisionLanguage):
    """PaliGemma; images come first, whole and at one size; a prompt is one bidirectional block."""

    model_types: ClassVar[tuple[str, ...]] = ("paligemma",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(templates={"default": "{media}<bos>{instruction}{text}\n"}, between=""),
        max_tokens=8192,
        max_frames=4,
        special_tokens=False,
    )
    # Its masks, and Gemma 2's capped scores, are no plain attention.
    packs: ClassVar = False

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    def image(self, image: PILImage) -> Visual:
        found = self.processor(images=[image], return_tensors="pt")
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        tensors = {"pixel_values": found["pixel_values"]}
        return Visual(_TOKEN, (side**2,), tensors, boxes=grid_boxes(side, side))

    def placed(self, row: Row, media: Mapping[str, Tensor]) -> Tensor:
        """Positions count from 1."""
        return torch.arange(1, row.tokens + 1)

    def padded_inputs(self, batch: VlmBatch, where: Tensor, mask: Tensor) -> dict[str, Any]:
        """Everything belongs to the prompt."""
        return {"token_type_ids": torch.zeros_like(where)}

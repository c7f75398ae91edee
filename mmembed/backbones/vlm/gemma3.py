"""Gemma 3 (Gemma Team 2025): each image is a block that reads both ways within a causal row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mmembed.backbones.vlm.model import VisionLanguage, VlmBatch
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Gemma3"]

_TOKEN = "<image_soft_token>"


class Gemma3(VisionLanguage):
    """Gemma 3; its prompt is the checkpoint's chat with an empty answer."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={
                "default": "<start_of_turn>user\n{instruction}{content}<end_of_turn>\n"
                "<start_of_turn>model\n"
            },
            image="\n\n<start_of_image>{visual}<end_of_image>\n\n",
            video="{visual}",
            between="",
        ),
        max_tokens=8192,
    )
    packs: ClassVar = False

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    def image(self, image: PILImage) -> Visual:
        found = self.processor(images=[image], return_tensors="pt")
        tokens = int(self.model.config.mm_tokens_per_image)
        return Visual(_TOKEN, (tokens,), {"pixel_values": found["pixel_values"]})

    def padded_inputs(self, batch: VlmBatch, where: Tensor, mask: Tensor) -> dict[str, Any]:
        """Which tokens are an image's: neighbours of these form one block."""
        return {"token_type_ids": (batch.spans["visual"][where] & mask).long()}

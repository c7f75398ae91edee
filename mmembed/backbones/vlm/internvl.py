"""InternVL 3 in transformers' form (Zhu et al. 2025): square tiles and a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from mmembed.backbones.vlm.clips import distinct, joined
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording
from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["InternVL"]

_TOKEN = "<IMG_CONTEXT>"


class InternVL(VisionLanguage):
    """InternVL over Qwen; its prompt is the checkpoint's chat with an empty answer."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={
                "default": "<|im_start|>user\n{instruction}{content}<|im_end|>\n"
                "<|im_start|>assistant\n"
            },
            image="<img>{visual}</img>",
        ),
        max_tokens=16384,
    )

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    def image(self, image: PILImage) -> Visual:
        return self._seen(image, tiles=True)

    def video(self, frames: Frames) -> Visual:
        """Each frame is one tile with its number before it."""
        from PIL import Image

        seen = [self._seen(Image.fromarray(frame), tiles=False) for frame in distinct(frames)]
        clip = joined(seen)
        texts = [f"Frame{i + 1}: <img>{one.text}</img>" for i, one in enumerate(seen)]
        return Visual("\n".join(texts), clip.counts, clip.tensors, kind="video")

    def _seen(self, image: PILImage, *, tiles: bool) -> Visual:
        found = self.processor(images=[image], crop_to_patches=tiles, return_tensors="pt")
        pixels = found["pixel_values"]
        config = self.model.config
        side = config.vision_config.image_size[0] // config.vision_config.patch_size[0]
        tokens = len(pixels) * int(side * config.downsample_ratio) ** 2
        return Visual(_TOKEN, (tokens,), {"pixel_values": pixels})

"""LLaVA-NeXT (Liu et al. 2024): an image as a whole and in tiles of the shape that fits it best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["LlavaNext", "tokens_of"]

_TOKEN = "<image>"


class LlavaNext(VisionLanguage):
    """LLaVA-NeXT over Mistral, Llama or Vicuna; its prompt is the one of the Mistral version."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(templates={"default": "[INST] {instruction}{content} [/INST]"}),
        max_tokens=32768,
        max_frames=4,
    )

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    def image(self, image: PILImage) -> Visual:
        found = self.processor(images=[image], return_tensors="pt")
        # Tiles of all images lie in one axis: the model counts them by the images' sizes.
        tensors = {"pixel_values": found["pixel_values"][0], "image_sizes": found["image_sizes"]}
        return Visual(_TOKEN, (tokens_of(image, self._counter),), tensors)

    @cached_property
    def _counter(self) -> Any:
        """The family's own processor, which knows how many tokens an image becomes."""
        from transformers import LlavaNextProcessor

        config = self.model.config
        extra = int(config.vision_config.model_type == "clip_vision_model")  # a class token
        return LlavaNextProcessor(
            image_processor=self.processor,
            tokenizer=self.tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=extra,
        )


def tokens_of(image: PILImage, counter: Any) -> int:
    """Visual tokens that a family's own processor counts for an image."""
    sizes = [(image.height, image.width)]
    tokens: int = counter._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"][0]
    return tokens

"""LLaVA-OneVision (Li et al. 2024): one image in tiles, several as wholes, and pooled clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.vlm.llava_next import tokens_of
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["IMAGE", "VIDEO", "LlavaOneVision"]

IMAGE, VIDEO = "<image>", "<video>"
_COUNTS = "batch_num_images"
_FRAMES = "frame_counts"


class LlavaOneVision(VisionLanguage):
    """LLaVA-OneVision over Qwen2; its prompt is the checkpoint's chat."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={
                "default": "<|im_start|>user {instruction}{content}<|im_end|>"
                "<|im_start|>assistant\n"
            }
        ),
        max_tokens=32768,
        max_frames=32,
    )

    @property
    def placeholders(self) -> Mapping[str, int]:
        config = self.model.config
        return {IMAGE: config.image_token_id, VIDEO: config.video_token_id}

    def images(self, images: Sequence[PILImage]) -> list[Visual]:
        """One image is cut into tiles; of several each is seen as a whole."""
        groups = [[image] for image in images] if len(images) == 1 else [list(images)]
        found = self.processor(images=groups, return_tensors="pt")
        visuals = []
        for i, image in enumerate(images):
            alone = len(images) == 1
            tokens = tokens_of(image, self._counter) if alone else self._side**2 + 1
            tensors = {
                "pixel_values": found["pixel_values"][i] if alone else found["pixel_values"][i][:1],
                "image_sizes": found["image_sizes"][i : i + 1],
                _COUNTS: torch.tensor([len(images)]),
            }
            visuals.append(Visual(IMAGE, (tokens,), tensors))
        return visuals

    def video(self, frames: Frames) -> Visual:
        """Every frame as a whole, its states pooled two by two; one more token ends the clip."""
        from PIL import Image

        side = self.model.config.vision_config.image_size
        pictures = [Image.fromarray(frame).resize((side, side)) for frame in frames.pixels]
        found = self.processor(images=[pictures], return_tensors="pt")
        pixels = found["pixel_values"][:, 0]
        tokens = len(pixels) * math.ceil(self._side / 2) ** 2 + 1
        tensors = {"pixel_values_videos": pixels, _FRAMES: torch.tensor([len(pixels)])}
        return Visual(VIDEO, (tokens,), tensors, kind="video")

    def media_inputs(self, rows: Sequence[Row]) -> dict[str, Any]:
        """With the number of images of each row, which says whether they come in tiles."""
        inputs: dict[str, Any] = super().media_inputs(rows)
        if _COUNTS in inputs:
            inputs[_COUNTS] = torch.cat(
                [r.extras[_COUNTS][:1] for r in rows if _COUNTS in r.extras]
            )
        return inputs

    def media_arguments(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        """Clips go through the vision tower one by one, because their lengths differ."""
        given = dict(media)
        if _FRAMES not in given:
            return given
        clips = given.pop("pixel_values_videos").split(given.pop(_FRAMES).tolist())
        model: Any = self.model
        states = [model.get_video_features(clip[None]).pooler_output[0] for clip in clips]
        joined = SimpleNamespace(pooler_output=torch.cat(states)[None])
        encoded: dict[str, Any] = {"video": joined}
        if "pixel_values" in given:
            encoded["image"] = model.get_image_features(**given)
        return {"mm_encoder_outputs": encoded}

    @property
    def _side(self) -> int:
        config = self.model.config.vision_config
        return int(config.image_size // config.patch_size)

    @cached_property
    def _counter(self) -> Any:
        """The family's own processor, which knows how many tokens an image becomes."""
        from transformers.models.llava_onevision.processing_llava_onevision import (
            LlavaOnevisionProcessor,
        )

        # Not its constructor, which insists on a video processor and hence on torchvision.
        counter = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
        config = self.model.config
        counter.image_processor = self.processor
        counter.tokenizer = self.tokenizer
        counter.num_image_tokens = self._side**2
        counter.vision_feature_select_strategy = config.vision_feature_select_strategy
        counter.vision_aspect_ratio = config.vision_aspect_ratio
        return counter

"""Phi-4-multimodal (Microsoft 2025): an image as a whole and in tiles without their blank parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.phi4_pixels import Phi4Pixels, used
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from transformers import PreTrainedModel

__all__ = ["Phi4Multimodal"]

_COUNTS, _TILES, _MASKS = "tile_counts", "tiles", "tile_masks"


class Phi4Multimodal(VisionLanguage):
    """Phi-4-multimodal without its speech; its prompt is the checkpoint's chat.

    The rotary positions of the published weights take other frequencies once a batch holds a
    position beyond 4096, which would make a row's vector depend on its neighbours: ``max_tokens``
    stays below that.
    """

    model_types: ClassVar[tuple[str, ...]] = ("phi4_multimodal",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={"default": "<|user|>{instruction}{content}<|end|><|assistant|>"}
        ),
        max_tokens=4096,
        max_frames=4,
    )

    def __init__(self, model: PreTrainedModel, *arguments: Any, **named: Any) -> None:
        super().__init__(model, *arguments, **named)
        # transformers calls the vision tower's attention causal, which SDPA heeds where there is no
        # mask: a picture would change with its neighbours' padding.
        tower: Any = model.embed_tokens_extend
        for module in tower.image_embed.img_processor.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False

    @classmethod
    def load_processor(cls, folder: Path) -> Phi4Pixels:
        """Our own: transformers' needs torchvision."""
        return Phi4Pixels.from_pretrained(folder)

    @property
    def language_model(self) -> PreTrainedModel:
        model: PreTrainedModel = self.model
        return model

    @property
    def lora_targets(self) -> str:
        return r"model\.layers\..*\.(qkv_proj|o_proj|gate_up_proj|down_proj)"

    @cached_property
    def placeholders(self) -> Mapping[str, int]:
        token = self.model.config.vision_config.image_token_id
        return {self.tokenizer.convert_ids_to_tokens(token): token}

    def image(self, image: PILImage) -> Visual:
        tiles, masks = self.processor(image)
        side = masks.shape[1] // 2
        size = self.processor.grid(image.height, image.width)
        rows, columns = used(masks[1:], *size)
        tensors = {
            _TILES: tiles,
            _MASKS: masks,
            _COUNTS: torch.tensor([len(tiles)]),
            "image_sizes": torch.tensor([size]) * self.processor.side,
        }
        # Each line of the tiles and of the whole ends in a token; one more stands between the two.
        tokens = rows * (columns + 1) + 1 + side * (side + 1)
        return Visual(next(iter(self.placeholders)), (tokens,), tensors)

    def media_arguments(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        """Tiles of each image, filled up to the largest number of them."""
        if _TILES not in media:
            return {}
        counts = media[_COUNTS].tolist()
        most = max(counts)
        tiles, masks = (
            torch.stack(
                [
                    F.pad(part, (0, 0) * (part.ndim - 1) + (0, most - len(part)), value=blank)
                    for part in media[name].split(counts)
                ]
            )
            for name, blank in ((_TILES, 0.0), (_MASKS, 1))
        )
        return {
            "image_pixel_values": tiles,
            "image_attention_mask": masks,
            "image_sizes": media["image_sizes"],
        }

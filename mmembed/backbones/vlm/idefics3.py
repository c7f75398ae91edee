"""Idefics3 and SmolVLM (Laurencon et al. 2024; Marafioti et al. 2025): numbered tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.vlm.clips import distinct, joined
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual, grid_boxes
from mmembed.backbones.vlm.wording import Wording
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from transformers import PreTrainedModel

__all__ = ["Idefics3"]

_TOKEN, _AROUND, _WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"


class Idefics3(VisionLanguage):
    """Idefics3 over Llama, and SmolVLM; its prompt is the checkpoint's chat."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics3", "smolvlm")
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={
                "default": "<|im_start|>User:{instruction}{content}<end_of_utterance>\nAssistant:"
            },
            between="",
        ),
        max_tokens=8192,
    )

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    @property
    def language_model(self) -> PreTrainedModel:
        """Here called the text model."""
        found: PreTrainedModel = self.model.text_model
        return found

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the text model's blocks."""
        return r"model\.text_model\..*\.([qkvo]_proj|(gate|up|down)_proj)"

    def image(self, image: PILImage) -> Visual:
        """Rows of tiles, each with its place, and then the image as a whole."""
        found = self.processor(images=[[image]], return_row_col_info=True, return_tensors="pt")
        rows, columns = int(found["rows"][0][0]), int(found["cols"][0][0])
        lines = [
            "".join(f"{_AROUND}<row_{r + 1}_col_{c + 1}>{_TOKEN}" for c in range(columns)) + "\n"
            for r in range(rows)
        ]
        whole = f"{_AROUND}{_WHOLE}{_TOKEN}{_AROUND}"
        text = "".join(lines) + ("\n" if lines else "") + whole
        tiles = [
            (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows)
            for r in range(rows)
            for c in range(columns)
        ]
        side = self._side
        boxes = [grid_boxes(side, side, within) for within in (*tiles, (0.0, 0.0, 1.0, 1.0))]
        return replace(self._visual(text, found), boxes=torch.cat(boxes))

    def video(self, frames: Frames) -> Visual:
        """Each frame as a whole, without tiles."""
        from PIL import Image

        text = f"{_AROUND}{_WHOLE}{_TOKEN}{_AROUND}"
        options = {"do_image_splitting": False, "return_tensors": "pt"}
        seen = [
            self._visual(text, self.processor(images=[[Image.fromarray(frame)]], **options))
            for frame in distinct(frames)
        ]
        return joined(seen)

    def media_inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The model counts images per row of its batch: all tiles are those of one."""
        inputs = super().media_inputs(rows)
        return {name: tensor.unsqueeze(0) for name, tensor in inputs.items()}

    @property
    def _shuffle(self) -> int:
        """So many patches a side become one token."""
        return int(self.model.config.scale_factor)

    @property
    def _side(self) -> int:
        """A tile is so many tokens wide and high."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size // self._shuffle)

    def _visual(self, text: str, found: Any) -> Visual:
        pixels = found["pixel_values"][0]
        tensors = {"pixel_values": pixels, "pixel_attention_mask": found["pixel_attention_mask"][0]}
        return Visual(text, (self._side**2,) * len(pixels), tensors)

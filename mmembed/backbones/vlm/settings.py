"""What a vision-language encoder is besides its weights: its prompt and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmembed.backbones.vlm.wording import Wording

__all__ = ["SETTINGS_NAME", "VlmSettings"]

SETTINGS_NAME = "vlm.json"


@dataclass(frozen=True, slots=True)
class VlmSettings:
    """What a vision-language encoder is besides its weights and its processor.

    Attributes:
        wording: templates of the prompt.
        instructions: instruction by role, for items that bring none of their own.
        max_tokens: tokens of one item, visual ones included; longer text is cut.
        min_pixels: smallest image, in pixels after resizing; None keeps the processor's own.
        max_pixels: likewise the largest, of images and pages.
        max_frame_pixels: likewise of a clip's frame; None takes ``max_pixels``.
        min_frame_pixels: smallest frame of a clip; None takes ``min_pixels``.
        max_clip_tokens: visual tokens of one clip in all: frames of the Qwen families become
            smaller, other families read fewer of them. None leaves it to ``max_tokens``.
        image_size: stretch every image to this width and height first; None does not.
        max_frames: frames sampled from a clip.
        fps: frames a second to sample, capped by ``max_frames``; None spreads them evenly.
        page_dpi: resolution at which pages are rendered before they are resized.
        page_text: also read the text layer of a page.
        special_tokens: the tokenizer puts its own special tokens around the prompt.
        flat_positions: count positions along the sequence alone, where the family would also count
            height and width: checkpoints that were trained so give their vectors only so.
    """

    wording: Wording = field(default_factory=Wording)
    instructions: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 8192
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_frame_pixels: int | None = None
    min_frame_pixels: int | None = None
    max_clip_tokens: int | None = None
    image_size: int | None = None
    max_frames: int = 8
    fps: float | None = None
    page_dpi: int = 144
    page_text: bool = False
    special_tokens: bool = True
    flat_positions: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VlmSettings:
        """Settings from what :func:`dataclasses.asdict` gave, or from a preset."""
        wording = Wording(**values["wording"]) if "wording" in values else Wording()
        return cls(**{**values, "wording": wording})

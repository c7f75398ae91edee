"""Decoded inputs: what the decoders hand to a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["DecodedItem", "DecodedPart", "Frames", "Page"]


@dataclass(frozen=True, slots=True)
class Frames:
    """Sampled frames of a clip.

    Attributes:
        pixels: ``(t, h, w, 3)`` uint8 RGB, ``t`` even (the last frame repeated where it was odd).
        indices: ``(t,)`` int64, the frames' numbers in the clip.
        seconds: ``(t,)`` float64, their presentation times.
        fps: frames a second of the clip itself.
        total: number of frames in the clip.
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    indices: np.ndarray[Any, np.dtype[np.int64]]
    seconds: np.ndarray[Any, np.dtype[np.float64]]
    fps: float
    total: int


@dataclass(frozen=True, slots=True)
class Page:
    """One rendered page: an RGB image, and its text layer (empty where there is none)."""

    image: PILImage
    text: str
    number: int


DecodedPart: TypeAlias = "str | PILImage | Frames | Page"


@dataclass(frozen=True, slots=True)
class DecodedItem:
    """One item ready for a backbone; an image is always RGB and upright.

    Attributes:
        parts: the decoded parts in the user's order.
        instruction: the instruction or prompt that precedes them, or an empty string.
        label: what the user would recognise the item by, for error messages.
        role: ``"query"``, ``"document"`` or ``""``; some models word the two differently.
        task: name of the task adapter that reads the item, or ``""`` for the model alone.
    """

    parts: tuple[DecodedPart, ...]
    instruction: str = ""
    label: str = "<text>"
    role: str = ""
    task: str = ""

    @property
    def pixels(self) -> int:
        """Pixels of all its pictures, pages and frames, which is what it weighs in memory."""
        total = 0
        for part in self.parts:
            if isinstance(part, Frames):
                total += part.pixels.size // 3
            elif not isinstance(part, str):
                image = part.image if isinstance(part, Page) else part
                total += image.width * image.height
        return total

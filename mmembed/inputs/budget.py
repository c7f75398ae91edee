"""How much of a medium one item may bring."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MediaBudget"]


@dataclass(frozen=True, slots=True)
class MediaBudget:
    """How much of a medium one item may bring; the decoder honours it before pixels are made.

    Attributes:
        max_pixels: pixels of one image, page or frame after resizing; None keeps the original size.
        page_dpi: resolution at which a PDF page is rendered, lowered where max_pixels says so.
        max_frames: frames sampled from one clip.
        fps: frames a second to sample, capped by max_frames; None spreads max_frames evenly.
        max_input_pixels: an image, page or frame that holds more than this many pixels is refused
            before it is decoded, because a file of some kilobytes may hold gigabytes of pixels.
    """

    max_pixels: int | None = None
    page_dpi: int = 144
    max_frames: int = 8
    fps: float | None = None
    max_input_pixels: int = 40_000_000

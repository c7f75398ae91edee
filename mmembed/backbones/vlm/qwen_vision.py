"""Pixels of the Qwen-VL families: images and clips as patches, resized to a pixel budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["QwenPixels"]


class QwenPixels:
    """Patches through the checkpoint's own image processor, also of clips.

    transformers' video processors need torchvision; a clip's frames go through the image processor
    here, and neighbouring frames are laid together as the video processor does.

    Args:
        processor: the checkpoint's image processor.
        min_pixels: smallest picture after resizing; None keeps the processor's own.
        max_pixels: likewise the largest image.
        max_frame_pixels: likewise of a clip's frame; None takes the image's.
        min_frame_pixels: smallest frame; None takes ``min_pixels``.
        max_clip_tokens: visual tokens of one clip; its frames are made smaller until they fit, as
            in qwen-vl-utils, but no smaller than the smallest. None sets no limit.
    """

    def __init__(
        self,
        processor: Any,
        min_pixels: int | None,
        max_pixels: int | None,
        max_frame_pixels: int | None = None,
        min_frame_pixels: int | None = None,
        max_clip_tokens: int | None = None,
    ) -> None:
        self._processor = processor
        low = min_pixels or int(processor.size["shortest_edge"])
        high = max_pixels or int(processor.size["longest_edge"])
        self._size = {"shortest_edge": low, "longest_edge": max(low, high)}
        self._largest_frame = max_frame_pixels or high
        self._smallest_frame = min(min_frame_pixels or low, self._largest_frame)
        self._clip_tokens = max_clip_tokens
        self._merged = int(processor.merge_size) ** 2

    def image(self, image: PILImage) -> tuple[Tensor, Tensor, int]:
        """``(patches, values)`` float32, the ``(1, 3)`` grid, and the visual tokens."""
        return self._patches([image], self._size)

    def clip(self, frames: Frames) -> tuple[Tensor, Tensor, int]:
        """The same of a clip; the grid's first number counts pairs of frames."""
        from PIL import Image

        images = [Image.fromarray(frame) for frame in frames.pixels]
        together = int(self._processor.temporal_patch_size)
        images += images[-1:] * (-len(images) % together)
        steps = len(images) // together
        patches, grids, _ = self._patches(images, self._frame_size(steps))
        height, width = int(grids[0, 1]), int(grids[0, 2])
        # A patch holds each pixel once a frame: (step, frame, place, colour, copy, pixels).
        size = int(self._processor.patch_size) ** 2
        laid = patches.view(steps, together, height * width, 3, together, size)
        laid = laid[:, :, :, :, 0].permute(0, 2, 3, 1, 4)
        grid = torch.tensor([[steps, height, width]])
        return (
            laid.reshape(steps * height * width, -1),
            grid,
            steps * height * width // self._merged,
        )

    def _frame_size(self, steps: int) -> dict[str, int]:
        """Limits of a frame's pixels in a clip that takes so many steps of the grid."""
        low, high = self._smallest_frame, self._largest_frame
        if self._clip_tokens is not None:
            a_token = self._merged * int(self._processor.patch_size) ** 2
            # A little more than the smallest, or no whole number of patches may lie between.
            high = min(high, max(self._clip_tokens * a_token // steps, int(low * 1.05)))
        return {"shortest_edge": low, "longest_edge": high}

    def _patches(self, images: list[PILImage], size: dict[str, int]) -> tuple[Tensor, Tensor, int]:
        found = self._processor(images=images, size=size, return_tensors="np")
        patches = torch.from_numpy(np.asarray(found["pixel_values"], dtype=np.float32))
        grids = torch.from_numpy(np.asarray(found["image_grid_thw"], dtype=np.int64))
        return patches, grids, int(grids.prod(dim=1).sum()) // self._merged

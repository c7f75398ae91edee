"""Pixels of the Qwen-VL families: images and clips as patches, resized to a pixel budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.backbones.vlm.visual import grid_boxes
from mmembed.gpte.onednn import linear
from mmembed.inputs.decoded import Frames

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["PatchProjection", "QwenPixels"]


class QwenPixels:
    """Patches as the checkpoint's own image processor makes them, also of clips.

    They stay bytes, and an image's are not repeated, until the vision tower reads them: an eighth
    of what the processor's own take, in memory and on the way to a device. transformers' video
    processors need torchvision; here neighbouring frames are laid together as they do.

    Args:
        processor: the checkpoint's image processor, whose settings are followed.
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
        low = min_pixels or int(processor.size["shortest_edge"])
        high = max_pixels or int(processor.size["longest_edge"])
        self._sizes = (low, max(low, high))
        self._largest_frame = max_frame_pixels or high
        self._smallest_frame = min(min_frame_pixels or low, self._largest_frame)
        self._clip_tokens = max_clip_tokens
        self._resample = int(processor.resample)
        self._patch = int(processor.patch_size)
        self._merge = int(processor.merge_size)
        self._together = int(processor.temporal_patch_size)
        scale = float(processor.rescale_factor)
        # Of bytes, one a channel.
        self._mean, self._deviation = (
            torch.tensor(given).view(3, 1, 1) / scale
            for given in (processor.image_mean, processor.image_std)
        )

    def image(self, image: PILImage) -> tuple[Tensor, Tensor, int]:
        """``(patches, 3, 1, values)`` uint8, the ``(1, 3)`` int64 grid, and the visual tokens.

        Raises:
            ValueError: one side is over 200 times the other.
        """
        return self._patches([image], *self._sizes)

    def clip(self, frames: Frames) -> tuple[Tensor, Tensor, int]:
        """``(patches, 3, frames of a step, values)`` uint8; the grid's first number counts steps.

        Raises:
            ValueError: as for :meth:`image`.
        """
        from PIL import Image

        images = [Image.fromarray(frame) for frame in frames.pixels]
        images += images[-1:] * (-len(images) % self._together)
        steps = len(images) // self._together
        patches, grids, _ = self._patches(images, *self._frame_sizes(steps))
        height, width = int(grids[0, 1]), int(grids[0, 2])
        laid = patches.view(steps, self._together, height * width, 3, -1).permute(0, 2, 3, 1, 4)
        grid = torch.tensor([[steps, height, width]])
        return laid.flatten(0, 1).contiguous(), grid, steps * height * width // self._merge**2

    def boxes(self, grid: Tensor) -> Tensor:
        """``(visual tokens, 4)`` float32: where each lies on an image of this grid."""
        rows, columns = (grid[0, 1:] // self._merge).tolist()
        return grid_boxes(rows, columns)

    def values(self, patches: Tensor, dtype: torch.dtype) -> Tensor:
        """``(patches, channels x frames x values)`` as the vision tower reads them, normalised.

        Args:
            patches: of :meth:`image` or :meth:`clip`, on any device.
        """
        mean, deviation = (x.to(patches.device) for x in (self._mean, self._deviation))
        scaled = (patches.float() - mean).div_(deviation).to(dtype)
        return scaled.expand(-1, -1, self._together, -1).flatten(1)

    def _frame_sizes(self, steps: int) -> tuple[int, int]:
        """Pixels of the smallest and the largest frame in a clip of so many steps of the grid."""
        low, high = self._smallest_frame, self._largest_frame
        if self._clip_tokens is not None:
            a_token = (self._merge * self._patch) ** 2
            # A little more than the smallest, or no whole number of patches may lie between.
            high = min(high, max(self._clip_tokens * a_token // steps, int(low * 1.05)))
        return low, high

    def _patches(
        self, images: Sequence[PILImage], low: int, high: int
    ) -> tuple[Tensor, Tensor, int]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        patch, merge = self._patch, self._merge
        found, grids = [], []
        for image in images:
            height, width = smart_resize(image.height, image.width, patch * merge, low, high)
            pixels = np.asarray(image.resize((width, height), self._resample))
            rows, columns = height // patch, width // patch
            cut = pixels.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
            # The patches of one visual token follow one another; in each, channel before place.
            laid = cut.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, 1, patch**2)
            found.append(torch.from_numpy(laid))
            grids.append([1, rows, columns])
        grid = torch.tensor(grids)
        patches = found[0] if len(found) == 1 else torch.cat(found)
        return patches, grid, int(grid.prod(dim=1).sum()) // merge**2


class PatchProjection(nn.Conv3d):
    """``nn.Conv3d`` over one patch at a time, as the matrix product that it is.

    Convolutions are made for many places: on a CPU this takes a fifth of the time.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(patches, channels, frames, height, width)`` as ``(patches, width of the tower)``."""
        return linear(input.flatten(1), self.weight.flatten(1), self.bias)

"""Pixels of Phi-4-multimodal with pillow: transformers' own image processor needs torchvision."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.weights import read_json

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Phi4Pixels", "used"]

_NAME = "preprocessor_config.json"
_LEAST = 10  # pixels of the shorter side after resizing, below which the model is of no use


@dataclass(frozen=True, slots=True)
class Phi4Pixels:
    """Resize, pad with white at the right or below, cut into square tiles, and add the whole.

    Attributes:
        side: width and height of a tile, in pixels.
        patch_size: of the vision tower.
        most: tiles of one image at most, the whole not counted.
        mean, deviation: of every channel, after scaling to 0..1.
        about: the file that the settings came from, which is saved again.
    """

    side: int = 448
    patch_size: int = 14
    most: int = 36
    mean: float = 0.5
    deviation: float = 0.5
    about: Any = None

    @classmethod
    def from_pretrained(cls, folder: Path) -> Phi4Pixels:
        """The settings in a checkpoint's ``preprocessor_config.json``.

        Raises:
            ModelLoadError: the file is missing or damaged.
            ValueError: it asks for channels that differ, or tiles that are not square.
        """
        about = read_json(folder / _NAME)
        size = about.get("size", {"height": 448, "width": 448})
        means, deviations = (about.get(f"image_{k}", [0.5] * 3) for k in ("mean", "std"))
        if size["height"] != size["width"] or len({*means}) > 1 or len({*deviations}) > 1:
            raise ValueError(f"{_NAME}: tiles are square, and channels scaled alike")
        return cls(
            size["height"],
            about.get("patch_size", 14),
            about.get("dynamic_hd", 36),
            means[0],
            deviations[0],
            about,
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write the file that :meth:`from_pretrained`, and transformers, read."""
        about = self.about or {
            "image_processor_type": "Phi4MultimodalImageProcessor",
            "size": {"height": self.side, "width": self.side},
            "patch_size": self.patch_size,
            "dynamic_hd": self.most,
            "image_mean": [self.mean] * 3,
            "image_std": [self.deviation] * 3,
        }
        (folder / _NAME).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles: as many as the image fills, or of the nearest shape."""
        rows, columns = math.ceil(height / self.side), math.ceil(width / self.side)
        if rows * columns <= self.most:
            return rows, columns
        shapes = sorted(
            ((c, r) for c in range(1, self.most + 1) for r in range(1, self.most // c + 1)),
            key=lambda shape: shape[0] * shape[1],
        )
        best, nearest = (1, 1), math.inf
        for shape in shapes:
            distance = abs(width / height - shape[0] / shape[1])
            full = height * width > 0.5 * self.side**2 * shape[0] * shape[1]
            if distance < nearest or (distance == nearest and full):
                best, nearest = shape, distance
        return best[1], best[0]

    def __call__(self, image: PILImage) -> tuple[Tensor, Tensor]:
        """``(1 + tiles, 3, side, side)`` float32 pixels, the whole first, and
        ``(1 + tiles, m, m)`` bool masks of the patches that are not padding.

        Raises:
            ValueError: the image is so narrow that nothing of it would be left.
        """
        from PIL import Image

        rows, columns = self.grid(image.height, image.width)
        height, width = rows * self.side, columns * self.side
        scale = min(width / image.width, height / image.height)
        by_width = width / image.width < height / image.height
        inner = (
            (width, int(image.height * scale)) if by_width else (int(image.width * scale), height)
        )
        if min(inner) < _LEAST:
            raise ValueError(f"{image.width} x {image.height} pixels are too narrow for this model")
        canvas = Image.new("RGB", (width, height), "white")
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR))
        found = torch.from_numpy(np.asarray(canvas).copy()).permute(2, 0, 1).float()
        pixels = (found / 255 - self.mean) / self.deviation
        whole = F.interpolate(
            pixels[None], (self.side, self.side), mode="bicubic", align_corners=False
        )
        patches = self.side // self.patch_size
        mask = torch.ones(rows * patches, columns * patches, dtype=torch.bool)
        blank_right, blank_below = (
            (outer - kept) // self.patch_size
            for outer, kept in zip((width, height), inner, strict=True)
        )
        mask[:, mask.shape[1] - blank_right :] = False
        mask[mask.shape[0] - blank_below :] = False
        tiles = _cut(pixels, rows, columns)
        masks = _cut(mask[None], rows, columns)[:, 0]
        return torch.cat([whole, tiles]), torch.cat([torch.ones_like(masks[:1]), masks])


def used(masks: Tensor, rows: int, columns: int) -> tuple[int, int]:
    """Lines of states, and states of a line, that are not padding: patches are pooled two by two.

    Args:
        masks: of the tiles, without the whole.
    """
    first_column = masks.view(rows, columns, *masks.shape[1:])[:, 0, ::2, 0]
    first_row = masks.view(rows, columns, *masks.shape[1:])[0, :, 0, ::2]
    return int(first_column.sum()), int(first_row.sum())


def _cut(plane: Tensor, rows: int, columns: int) -> Tensor:
    """``(rows * columns, c, h, w)`` tiles of ``(c, rows * h, columns * w)``, row by row."""
    channels, height, width = plane.shape
    parts = plane.view(channels, rows, height // rows, columns, width // columns)
    return parts.permute(1, 3, 0, 2, 4).flatten(0, 1)

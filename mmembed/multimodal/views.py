"""Views of an image: what augmentation shows of it, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["VIEWS", "crop", "flip", "full"]


def full(image: PILImage, seed: str) -> PILImage:
    """The image itself, which is what a model sees outside training."""
    return image


def flip(image: PILImage, seed: str) -> PILImage:
    """Its mirror image."""
    from PIL.Image import Transpose

    return image.transpose(Transpose.FLIP_LEFT_RIGHT)


def crop(image: PILImage, seed: str) -> PILImage:
    """60 to 100 % of its area in nearly its shape, its light and colours changed."""
    from PIL import ImageEnhance

    rng = random.Random(seed)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(0.75, 1.3))
    if rng.random() < 0.5:
        image = flip(image, seed)
    side = rng.uniform(0.6, 1.0) ** 0.5
    width = image.width * min(1.0, side * rng.uniform(0.88, 1.14))
    height = image.height * min(1.0, side / rng.uniform(0.88, 1.14))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    right, bottom = max(left + width, left + 1), max(top + height, top + 1)
    return image.crop((round(left), round(top), round(right) or 1, round(bottom) or 1))


VIEWS: dict[str, Callable[[PILImage, str], PILImage]] = {
    "full": full,
    "flip": flip,
    "crop": crop,
}

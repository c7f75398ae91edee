"""Sizes that are refused before any pixel is decoded."""

from __future__ import annotations

from mmembed.errors import InputError

__all__ = ["MAX_ASPECT_RATIO", "check_size", "fit_size"]

MAX_ASPECT_RATIO = 200
"""Longer side over shorter side; vision processors fail or see nothing beyond it."""


def check_size(label: str, width: int, height: int, *, limit: int | None) -> None:
    """Refuse an image, page or frame that is empty, extremely narrow or too large to decode.

    Args:
        limit: pixels that are allowed; None allows any number.

    Raises:
        InputError: with the size in the message.
    """
    size = f"{width}x{height}"
    if width < 1 or height < 1:
        raise InputError(label, f"has no pixels ({size})")
    ratio = max(width, height) / min(width, height)
    if ratio > MAX_ASPECT_RATIO:
        raise InputError(
            label,
            f"is {size}: its aspect ratio of {ratio:.0f} is over {MAX_ASPECT_RATIO}",
            "crop it, or cut it into parts",
        )
    if limit is not None and width * height > limit:
        raise InputError(
            label,
            f"is {size}, {width * height / 1e6:.1f} million pixels; at most "
            f"{limit / 1e6:g} million are decoded",
            "make it smaller, or raise max_input_pixels",
        )


def fit_size(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """The largest size of the same aspect ratio within ``max_pixels``; never an enlargement."""
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    scale = (max_pixels / (width * height)) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))

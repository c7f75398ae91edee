"""Images of any mode, made RGB and upright."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.items import ImagePart, MediaSource
from mmembed.inputs.limits import check_size, fit_size
from mmembed.inputs.pixels import rgb_pixels, to_8_bit
from mmembed.inputs.source import content_name, open_source, read_head

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["FORMATS", "decode_image", "to_rgb"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Pillow's names of the formats that are opened; the others are rare, and some of them unsafe."""

_HIGH_DEPTH_MODES = ("I", "F")
# Pillow's decoders make coarse sizes cheaply; twice the target keeps the final resize sharp.
_REDUCING_GAP = 2.0

_log = logging.getLogger(__name__)
_load_lock = threading.Lock()


def decode_image(source: MediaSource, budget: MediaBudget | None = None) -> PILImage:
    """Decode one image: its first frame, upright by its EXIF orientation, in RGB.

    Transparent pixels are laid over white, and values of 16 or more bits are scaled, not clipped.
    An image above ``budget.max_pixels`` is made smaller at the same aspect ratio.

    Args:
        source: path, bytes, PIL image (left unchanged), or array: ``(h, w)``, ``(h, w, 1)``,
            ``(h, w, 3)`` or ``(h, w, 4)`` of uint8, uint16, bool, or floats within [0, 1].

    Raises:
        InputError: the source is missing, empty, damaged, truncated, not an image of an accepted
            format, above ``budget.max_input_pixels``, or narrower than 200 to 1.
    """
    budget = budget or MediaBudget()
    label = ImagePart(source).label
    if isinstance(source, np.ndarray):
        return _from_array(source, label, budget)
    if isinstance(source, (str, Path, bytes)):
        return _from_file(source, label, budget)
    return _from_pil(source, label, budget)


def to_rgb(image: PILImage) -> PILImage:
    """An image of any Pillow mode in RGB.

    Values of modes ``I;16`` and ``I`` count from 0 to 65535, and of ``F`` from 0 to 1; where they
    lie outside, the range of the values themselves is used.
    """
    from PIL import Image

    if image.mode.startswith(_HIGH_DEPTH_MODES):
        return Image.fromarray(to_8_bit(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _from_array(array: np.ndarray[Any, Any], label: str, budget: MediaBudget) -> PILImage:
    from PIL import Image

    if array.ndim not in (2, 3):
        raise InputError(
            label, f"has {array.ndim} dimensions", "give (h, w), (h, w, 3) or (h, w, 4)"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.size == 0:
        raise InputError(label, "has no pixels")
    image = Image.fromarray(rgb_pixels(array, label))
    check_size(label, *image.size, limit=budget.max_input_pixels)
    return _shrink(image, budget)


def _from_pil(image: PILImage, label: str, budget: MediaBudget) -> PILImage:
    check_size(label, *image.size, limit=budget.max_input_pixels)
    try:
        with _load_lock:  # Loading changes a lazy image, which several items may share.
            image.load()
        return _shrink(to_rgb(_upright(image, label)), budget)
    except Exception as error:
        raise InputError(label, f"cannot be decoded: {error}") from error


def _from_file(source: str | Path | bytes, label: str, budget: MediaBudget) -> PILImage:
    from PIL import Image

    with open_source(source, label) as stream:
        try:
            image = Image.open(stream, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            raise _not_an_image(source, label) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(label, f"is too large to decode: {error}") from error
        except Exception as error:  # Pillow's parsers raise many types on damaged headers.
            raise InputError(label, f"its header is damaged: {error}") from error
        with image:
            # Before any pixel is decoded: a small file may hold gigabytes of them.
            check_size(label, *image.size, limit=budget.max_input_pixels)
            wanted = fit_size(*image.size, budget.max_pixels)
            if wanted != image.size:
                image.draft(None, tuple(int(side * _REDUCING_GAP) for side in wanted))  # type: ignore[arg-type]
            try:
                image.load()
                rgb = to_rgb(_upright(image, label))
            except Exception as error:  # The same for damaged pixel data.
                raise InputError(label, f"is truncated or damaged: {error}") from error
            return _shrink(rgb, budget)


def _upright(image: PILImage, label: str) -> PILImage:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Damaged EXIF data says nothing about the pixels.
        _log.debug("%s: EXIF orientation ignored: %s", label, error)
        return image.copy()


def _shrink(image: PILImage, budget: MediaBudget) -> PILImage:
    from PIL import Image

    size = fit_size(*image.size, budget.max_pixels)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)


def _not_an_image(source: str | Path | bytes, label: str) -> InputError:
    found = content_name(read_head(source, label))
    formats = f"the formats are {', '.join(FORMATS)}"
    if found is None:
        return InputError(label, "is not an image that can be read", formats)
    if found == "an image":
        return InputError(label, "is damaged, or of an image format that is not read", formats)
    return InputError(label, f"is not an image, it is {found}")

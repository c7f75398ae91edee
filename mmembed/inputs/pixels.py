"""Arrays of pixels of any depth, made 8-bit RGB."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import InputError

__all__ = ["UInt8Array", "rgb_pixels", "to_8_bit"]

UInt8Array: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

_CHANNELS = (1, 3, 4)


def to_8_bit(values: np.ndarray[Any, Any]) -> UInt8Array:
    """Scale integers of 0..65535 or floats of 0..1 to 0..255.

    Values outside those ranges have a scale of their own (metres, kelvin), so the smallest becomes
    0 and the largest 255.

    Raises:
        ValueError: a value is not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("holds values that are not finite")
    top = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    if low < 0 or high > top:
        values, top = values.astype(np.float64) - low, (high - low) or 1.0
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def rgb_pixels(array: np.ndarray[Any, Any], label: str) -> UInt8Array:
    """Pixels ``(h, w, c)``, ``c`` of 1, 3 or 4, as ``(h, w, 3)`` uint8; alpha over white.

    Raises:
        InputError: the channels are not last, the dtype is not one of uint8, uint16, bool and
            float, or the values lie outside its range.
    """
    channels = array.shape[-1]
    if channels not in _CHANNELS:
        raise InputError(
            label,
            f"has {channels} channels in its last dimension",
            "the channels come first here: give np.moveaxis(array, -3, -1)"
            if array.shape[0] in _CHANNELS
            else "give 1 (grey), 3 (RGB) or 4 (RGBA)",
        )
    pixels = _8_bit_array(array, label)
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 3:
        return np.ascontiguousarray(pixels)
    alpha = pixels[..., 3:].astype(np.float32) / 255.0
    return np.rint(pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)


def _8_bit_array(array: np.ndarray[Any, Any], label: str) -> UInt8Array:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return to_8_bit(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            label, f"its dtype is {array.dtype}", "give uint8, uint16, bool, or floats in [0, 1]"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # Written so that NaN fails.
        raise InputError(
            label,
            f"its floats range from {low:g} to {high:g}, and not within [0, 1]",
            "divide by 255, or undo the normalisation",
        )
    return to_8_bit(array)

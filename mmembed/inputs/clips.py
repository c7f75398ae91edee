"""What every source of frames offers to the video decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.pixels import UInt8Array, rgb_pixels

__all__ = ["ArrayClip", "Clip", "Float64Array", "UnreliableClipError"]

Float64Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


class UnreliableClipError(Exception):
    """A decoder opened a clip, but its frame numbers cannot be trusted."""


class Clip(Protocol):
    """An open clip.

    Attributes:
        seconds: ``(n,)`` strictly increasing presentation times of all frames, from 0.
        nominal_fps: the rate that the container declares; only a one-frame clip needs it.
    """

    seconds: Float64Array
    nominal_fps: float

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """The frames ``(h, w, 3)`` RGB, upright, at these strictly ascending numbers."""
        ...

    def close(self) -> None: ...


class ArrayClip:
    """A clip that is in memory: an array ``(t, h, w, c)`` of ``fps`` frames a second.

    Raises:
        InputError: its shape is another, or it holds no frames.
    """

    def __init__(self, array: np.ndarray[Any, Any], label: str, fps: float) -> None:
        if array.ndim != 4:
            raise InputError(label, f"has {array.ndim} dimensions", "give (t, h, w, 3)")
        if array.size == 0:
            raise InputError(label, "has no frames or no pixels")
        self._array = array
        self._label = label
        self.nominal_fps = fps
        self.seconds: Float64Array = np.arange(len(array)) / fps

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        return (rgb_pixels(self._array[index], self._label) for index in indices)

    def close(self) -> None:
        pass

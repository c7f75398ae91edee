"""Animated GIF, WebP, PNG and AVIF as clips, read by Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.clips import Float64Array
from mmembed.inputs.image import FORMATS, to_rgb
from mmembed.inputs.limits import check_size
from mmembed.inputs.pixels import UInt8Array
from mmembed.inputs.source import open_source

__all__ = ["AnimatedImage"]

# Browsers show a frame that declares no duration, or nearly none, for a tenth of a second.
_SHORTEST_MS = 10
_DEFAULT_MS = 100


class AnimatedImage:
    """An animated image as a :class:`~mmembed.inputs.clips.Clip`.

    Raises:
        InputError: the image is damaged, too large, or does not move.
    """

    def __init__(self, source: str | Path | bytes, label: str, max_pixels: int) -> None:
        from PIL import Image

        self._label = label
        self._stream = open_source(source, label)
        try:
            self._image = Image.open(self._stream, formats=FORMATS)
            check_size(label, *self._image.size, limit=max_pixels)
            count = getattr(self._image, "n_frames", 1)
            if count < 2:
                raise InputError(label, "is a still image, not a clip", "give it under 'image'")
            durations = [self._duration(number) for number in range(count)]
        except InputError:
            self.close()
            raise
        except Exception as error:  # Pillow's parsers raise many types on damaged files.
            self.close()
            raise InputError(label, f"the animation is damaged: {error}") from error
        starts = np.cumsum([0.0, *durations[:-1]])
        self.seconds: Float64Array = starts / 1000.0
        self.nominal_fps = 1000.0 * count / sum(durations)

    def _duration(self, number: int) -> float:
        self._image.seek(number)
        if self._image.format in ("WEBP", "AVIF"):
            self._image.load()  # These formats tell a frame's duration only then.
        milliseconds = float(self._image.info.get("duration") or 0)
        return milliseconds if milliseconds > _SHORTEST_MS else _DEFAULT_MS

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        for index in indices:
            try:
                self._image.seek(index)
                yield np.asarray(to_rgb(self._image.copy()))
            except Exception as error:
                raise InputError(
                    self._label, f"frame {index} of the animation is damaged: {error}"
                ) from error

    def close(self) -> None:
        self._stream.close()

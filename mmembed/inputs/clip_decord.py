"""Clips read by decord: the fastest decoder, for the containers it reads exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from mmembed.inputs.clips import Float64Array, UnreliableClipError
from mmembed.inputs.pixels import UInt8Array

__all__ = ["DecordClip"]


class DecordClip:
    """A clip open in decord, for one thread: a reader must not be shared or cross a fork.

    Raises:
        ImportError: decord is not installed; it has no wheel for ARM and for recent macOS.
        UnreliableClipError: decord's frame times show that it would return other frames than
            asked for, as it does without an error for trimmed clips (edit lists).
        Exception: decord cannot read the clip.
    """

    def __init__(self, source: Path | bytes) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._reader = decord.VideoReader(
            BytesIO(source) if isinstance(source, bytes) else str(source),
            ctx=decord.cpu(0),
            num_threads=1,  # Clips are decoded in parallel already; 0 would take every core.
        )
        times = self._reader.get_frame_timestamp(list(range(len(self._reader))))[:, 0]
        self.seconds: Float64Array = times.astype(np.float64)
        if not (self.seconds[0] >= 0 and (np.diff(self.seconds) > 0).all()):
            raise UnreliableClipError("decord's frame times do not increase from zero")
        self.seconds -= self.seconds[0]
        self.nominal_fps = float(self._reader.get_avg_fps())

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        # One at a time and not get_batch, so that only one frame of full size is in memory.
        # Within a group of pictures decord goes on from where it is.
        for index in indices:
            yield self._reader[index].asnumpy()

    def close(self) -> None:
        del self._reader

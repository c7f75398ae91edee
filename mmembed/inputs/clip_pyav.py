"""Clips read by PyAV: every container that FFmpeg knows, and exact frames in all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.clips import Float64Array
from mmembed.inputs.pixels import UInt8Array

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["ClipHeader", "PyAVClip", "read_header"]

_INDEXED = ("mov", "matroska")
"""Containers (in FFmpeg's names) whose packets carry exact presentation times."""


@dataclass(frozen=True, slots=True)
class ClipHeader:
    """What a container says before any frame is decoded.

    Attributes:
        width, height: as stored, before any rotation.
        frames: how many it declares, 0 where it does not; damaged headers declare anything.
        indexed: its packets carry exact presentation times.
    """

    width: int
    height: int
    frames: int
    indexed: bool


def read_header(source: Path | bytes, label: str) -> ClipHeader:
    """Open the container and look at its first video stream.

    Raises:
        InputError: it is not a container that can be read, or holds no video.
    """
    container, stream = _open(source, label)
    with container:
        codec = stream.codec_context
        return ClipHeader(codec.width, codec.height, stream.frames, _is_indexed(container))


class PyAVClip:
    """A clip open in PyAV.

    In MP4 and Matroska the packets' times are listed first, and frames are then found by seeking
    to the key frame before them. Elsewhere packet times may be missing or wrong (AVI has none), so
    the frames are decoded once to be counted and once more to be returned.

    Raises:
        InputError: the clip is damaged, truncated, or holds no video.
    """

    def __init__(self, source: Path | bytes, label: str) -> None:
        self._source = source
        self._label = label
        self._container, self._stream = _open(source, label)
        self.nominal_fps = float(self._stream.average_rate or 1)
        self._last: int | None = None
        try:
            self._times, self._keys = _list_packets(self._container, self._stream)
            unit = float(self._stream.time_base or 1)
            times = np.asarray([pts * unit for pts in self._times] or self._decoded_times())
        except Exception as error:
            self.close()
            raise self._damaged(error) from error
        self.seconds: Float64Array = times - times[0]

    def _decoded_times(self) -> list[float]:
        """Seconds of every frame, from decoding them all; counted out where none are told."""
        self._rewind()
        times = [frame.time for frame in self._container.decode(self._stream)]
        if not times:
            raise ValueError("no frame can be decoded")
        self._rewind()
        known = [time for time in times if time is not None]
        if len(known) == len(times) and all(a < b for a, b in pairwise(known)):
            return known
        return [number / self.nominal_fps for number in range(len(times))]

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        try:
            found = self._by_time(indices) if self._times else self._by_count(indices)
            for frame in found:
                yield _upright_rgb(frame)
        except InputError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def close(self) -> None:
        self._container.close()

    def _by_time(self, indices: Sequence[int]) -> Iterator[VideoFrame]:
        for index in indices:
            target = self._times[index]
            key = self._keys[max(0, bisect_right(self._keys, target) - 1)]
            frame = None
            if self._last is None or key > self._last:
                self._seek(key)
            frame = self._advance_to(target)
            if frame is None:
                # Seeking may land on a later key frame, as containers search by decoding time.
                self._seek(self._keys[0])
                frame = self._advance_to(target)
            if frame is None:
                raise ValueError(f"frame {index} of {len(self._times)} cannot be decoded")
            yield frame

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)
        self._decoder = self._container.decode(self._stream)

    def _advance_to(self, pts: int) -> VideoFrame | None:
        for frame in self._decoder:
            if frame.pts is None:
                continue
            self._last = frame.pts
            if frame.pts >= pts:
                return frame if frame.pts == pts else None
        return None

    def _by_count(self, indices: Sequence[int]) -> Iterator[VideoFrame]:
        wanted = set(indices)
        for number, frame in enumerate(self._container.decode(self._stream)):
            if number in wanted:
                yield frame
                if number == indices[-1]:
                    return
        raise ValueError(f"fewer than {indices[-1] + 1} frames can be decoded")

    def _rewind(self) -> None:
        # Opened anew, because not every container can seek to its start.
        self._container.close()
        self._container, self._stream = _open(self._source, self._label)

    def _damaged(self, error: Exception) -> InputError:
        return InputError(self._label, f"the clip is truncated or damaged: {_reason(error)}")


def _open(source: Path | bytes, label: str) -> tuple[InputContainer, VideoStream]:
    import av

    try:
        container = av.open(BytesIO(source) if isinstance(source, bytes) else str(source), "r")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            label, f"is not a clip that can be read, or is truncated: {_reason(error)}"
        ) from error
    # The cover picture of an audio file is a stream of one image.
    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        raise InputError(label, f"holds no video stream, only {', '.join(kinds) or 'no streams'}")
    stream = videos[0]
    if stream.codec_context is None:  # Typed as never None, but it is where no decoder exists.
        container.close()
        raise InputError(label, "its video codec is unknown, or its header is damaged")
    stream.codec_context.thread_count = 1  # Clips are decoded in parallel already.
    return container, stream


def _is_indexed(container: InputContainer) -> bool:
    return any(name in _INDEXED for name in container.format.name.split(","))


def _list_packets(container: InputContainer, stream: VideoStream) -> tuple[list[int], list[int]]:
    """Times of the frames shown and of the key frames, both sorted; empty where not reliable."""
    if not _is_indexed(container):
        return [], []
    shown: list[int] = []
    keys: list[int] = []
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.pts is None:
            return [], []
        if packet.is_keyframe:
            keys.append(packet.pts)
        if not packet.is_discard:  # An edit list cuts these off.
            shown.append(packet.pts)
    if not keys or len(set(shown)) < len(shown):
        return [], []
    return sorted(shown), sorted(keys)


def _upright_rgb(frame: VideoFrame) -> UInt8Array:
    pixels: Any = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels


def _reason(error: Exception) -> str:
    # FFmpeg's errors append what was being done, with the path again.
    return getattr(error, "strerror", None) or str(error)

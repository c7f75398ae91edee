"""Clips: uniformly sampled frames with their exact numbers and times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.animation import AnimatedImage
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.clip_decord import DecordClip
from mmembed.inputs.clip_pyav import PyAVClip, read_header
from mmembed.inputs.clips import ArrayClip, Clip
from mmembed.inputs.container import DECLARATION_BYTES, declared_size
from mmembed.inputs.decoded import Frames
from mmembed.inputs.items import VideoPart
from mmembed.inputs.limits import check_size, fit_size
from mmembed.inputs.pixels import UInt8Array
from mmembed.inputs.sniff import sniff
from mmembed.inputs.source import content_name, local_path, open_source

__all__ = ["decode_video", "sample_indices"]

_ARRAY_FPS = 1.0

_log = logging.getLogger(__name__)

Opener = Callable[[], Clip]


def decode_video(part: VideoPart, budget: MediaBudget) -> Frames:
    """Decode frames spread evenly over a clip, the first and the last among them.

    The source is a path or the bytes of a clip or of an animated image, or an array
    ``(t, h, w, 3)`` as :func:`~mmembed.inputs.pixels.rgb_pixels` takes it. An array has no clock:
    its frames count as ``fps`` frames a second, or as one a second.

    Raises:
        InputError: the source is missing, empty, truncated, damaged, not a clip, or holds no
            video; a frame is above ``budget.max_input_pixels`` or narrower than 200 to 1;
            ``fps`` or ``max_frames`` is not a positive number.
    """
    fps = part.fps if part.fps is not None else budget.fps
    max_frames = part.max_frames if part.max_frames is not None else budget.max_frames
    _check_sampling(part.label, fps, max_frames)
    *first, last = _openers(part, budget, fps)
    for opener in first:
        try:
            with closing(opener()) as clip:
                return _sample(clip, fps, max_frames, part.label, budget)
        except Exception as error:  # Decoders raise many types; the last one has the last word.
            _log.debug("%s: trying the next decoder after: %s", part.label, error)
    with closing(last()) as clip:
        return _sample(clip, fps, max_frames, part.label, budget)


def sample_indices(
    seconds: np.ndarray[Any, Any], clip_fps: float, fps: float | None, max_frames: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Frame numbers spread evenly over a clip, both ends included: ``round(linspace(0, n-1, k))``.

    Args:
        seconds: ``(n,)`` times of all frames.
        fps: frames a second wanted, so that ``k`` is about ``fps`` times the duration; None wants
            as many as allowed.
        max_frames: upper limit of ``k``.

    Returns:
        ``(k,)`` int64, strictly ascending, ``1 <= k <= min(n, max_frames)``.
    """
    total = len(seconds)
    count = min(total, max_frames)
    if fps is not None:
        duration = float(seconds[-1] - seconds[0]) + 1.0 / clip_fps
        count = max(1, min(count, round(duration * fps)))
    return np.rint(np.linspace(0, total - 1, count)).astype(np.int64)


def _check_sampling(label: str, fps: Any, max_frames: Any) -> None:
    if isinstance(max_frames, bool) or not isinstance(max_frames, int) or max_frames < 1:
        raise InputError(
            label, f"max_frames is {max_frames!r}", "give a whole number of at least 1"
        )
    is_number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if fps is not None and not (is_number and 0 < fps < float("inf")):
        raise InputError(label, f"fps is {fps!r}", "give a number above 0")


def _openers(part: VideoPart, budget: MediaBudget, fps: float | None) -> Sequence[Opener]:
    """The readers to try in turn, each as a call that opens it."""
    source, label = part.source, part.label
    if isinstance(source, np.ndarray):
        return [partial(ArrayClip, source, label, fps or _ARRAY_FPS)]
    if not isinstance(source, (str, Path, bytes)):
        raise InputError(label, "is a still image, not a clip", "give it under 'image'")
    with open_source(source, label) as stream:
        head = stream.read(DECLARATION_BYTES)
        size = stream.seek(0, 2)
    medium = sniff(head)
    if medium == "image":
        return [partial(AnimatedImage, source, label, budget.max_input_pixels)]
    if medium == "document":
        raise InputError(label, f"is not a clip, it is {content_name(head)}")
    declared = declared_size(head)
    if declared is not None and declared > size:
        raise InputError(label, f"is truncated: it holds {size} of {declared} bytes")
    clip = source if isinstance(source, bytes) else local_path(source)
    header = read_header(clip, label)
    check_size(label, header.width, header.height, limit=budget.max_input_pixels)
    # Without exact times in the packets decord returns wrong frames without an error, and it ends
    # the whole process where it cannot allocate an entry for each frame that a header declares.
    is_safe = header.indexed and header.frames <= size
    decord = [partial(DecordClip, clip)] if is_safe else []
    return [*decord, partial(PyAVClip, clip, label)]


def _sample(
    clip: Clip, fps: float | None, max_frames: int, label: str, budget: MediaBudget
) -> Frames:
    total = len(clip.seconds)
    clip_fps = clip.nominal_fps if total == 1 else (total - 1) / float(clip.seconds[-1])
    indices = sample_indices(clip.seconds, clip_fps, fps, max_frames)
    frames: list[UInt8Array] = []
    for frame in clip.frames(indices.tolist()):
        # A stream may change its size; the first frame's holds for all.
        height, width = frames[0].shape[:2] if frames else frame.shape[:2]
        check_size(label, width, height, limit=budget.max_input_pixels)
        size = (width, height) if frames else fit_size(width, height, budget.max_pixels)
        frames.append(_resized(frame, size))
    if len(indices) % 2:  # Video encoders merge frames in pairs.
        indices = np.append(indices, indices[-1])
        frames.append(frames[-1])
    return Frames(
        pixels=np.stack(frames),
        indices=indices,
        seconds=clip.seconds[indices],
        fps=clip_fps,
        total=total,
    )


def _resized(frame: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    from PIL import Image

    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))

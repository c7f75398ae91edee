"""Clips as mteb hands them over: decoders of torchcodec, tensors of frames, or paths."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.video import sample_indices

__all__ = ["clip_of"]


class _Decoder(Protocol):
    """What is used of ``torchcodec.decoders.VideoDecoder``, which datasets makes of a clip."""

    metadata: Any

    def __len__(self) -> int: ...
    def get_frames_at(self, indices: list[int]) -> Any: ...


def clip_of(video: Any, budget: MediaBudget) -> Any:
    """A clip that an embedder reads.

    Args:
        video: a decoder of torchcodec, a ``(t, 3, h, w)`` uint8 tensor, or what an embedder reads
            already, such as a path.
        budget: how many frames are taken out of a decoder; the same ones as out of a file.

    Returns:
        ``(t, h, w, 3)`` uint8 frames of a decoder or tensor; anything else as it is.
    """
    if isinstance(video, Tensor):
        return video.permute(0, 2, 3, 1).numpy()
    if hasattr(video, "get_frames_at"):
        return clip_of(_frames(video, budget), budget)
    return video


def _frames(decoder: _Decoder, budget: MediaBudget) -> Tensor:
    rate = float(decoder.metadata.average_fps or 1.0)
    chosen = sample_indices(np.arange(len(decoder)) / rate, rate, budget.fps, budget.max_frames)
    frames: Tensor = decoder.get_frames_at(chosen.tolist()).data
    return frames

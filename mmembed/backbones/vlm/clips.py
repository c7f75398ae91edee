"""Frames of a clip: without copies, fewer of them, or as so many pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmembed.backbones.vlm.visual import Visual
from mmembed.inputs.decoded import Frames

__all__ = ["distinct", "joined", "thinned"]


def joined(visuals: Sequence[Visual], separator: str = "") -> Visual:
    """Several pictures as one visual, in their order, e.g. the frames of a clip."""
    names = visuals[0].tensors
    return Visual(
        separator.join(visual.text for visual in visuals),
        tuple(count for visual in visuals for count in visual.counts),
        {name: torch.cat([visual.tensors[name] for visual in visuals]) for name in names},
        kind="video",
    )


def distinct(frames: Frames) -> Any:
    """The frames without the copy that evens out an odd number."""
    repeated = len(frames.indices) > 1 and frames.indices[-1] == frames.indices[-2]
    return frames.pixels[:-1] if repeated else frames.pixels


def thinned(frames: Frames, count: int) -> Frames:
    """``count`` of the frames, spread evenly with both ends; one more copy where that is odd."""
    kept = np.rint(np.linspace(0, len(distinct(frames)) - 1, count)).astype(np.int64)
    if count % 2:
        kept = np.append(kept, kept[-1])
    return replace(
        frames,
        pixels=frames.pixels[kept],
        indices=frames.indices[kept],
        seconds=frames.seconds[kept],
    )

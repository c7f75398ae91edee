"""Qwen2.5-VL (Bai et al. 2025): windowed vision, and positions in real time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmembed.backbones.vlm.qwen2_vl import Qwen2VL
from mmembed.backbones.vlm.visual import Visual
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import Frames

__all__ = ["Qwen25VL"]

_SECONDS = "second_per_grid_ts"


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, and a clip's tokens stand as far apart as its frames in time."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)

    def video(self, frames: Frames) -> Visual:
        visual = super().video(frames)
        seconds = np.unique(frames.seconds)  # an odd clip repeats its last frame
        between = float(seconds[-1] - seconds[0]) / max(1, len(seconds) - 1)
        # Seconds between two steps of the grid, each of which holds so many frames.
        apart = between * int(self.processor.temporal_patch_size) or 1.0
        return replace(visual, tensors={**visual.tensors, _SECONDS: torch.tensor([apart])})

    def timing(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        return {_SECONDS: media[_SECONDS]} if _SECONDS in media else {}

    def media_inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Without the times, which the positions hold already."""
        inputs = super().media_inputs(rows)
        inputs.pop(_SECONDS, None)
        return inputs

"""Qwen3-VL (Qwen Team 2025): deep-stacked visual features, and clips with written times."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from mmembed.backbones.vlm.qwen2_vl import VIDEO, WORDING, Qwen2VL
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.inputs.decoded import Frames

__all__ = ["Qwen3VL"]


class Qwen3VL(Qwen2VL):
    """Qwen3-VL: before each pair of a clip's frames stands its time in the clip."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    defaults: ClassVar = VlmSettings(
        # A clip writes the markers around each of its pairs of frames by itself.
        wording=replace(WORDING, video="{visual}", empty="NULL", instruction_stop="."),
        instructions=dict.fromkeys(("", "query", "document"), "Represent the user's input."),
        min_pixels=4 * 32 * 32,
        max_pixels=1800 * 32 * 32,
        max_frame_pixels=768 * 32 * 32,
        max_clip_tokens=7680,
        max_frames=64,
        fps=1.0,
    )

    def video(self, frames: Frames) -> Visual:
        visual = super().video(frames)
        steps, height, width = visual.tensors["video_grid_thw"][0].tolist()
        together = int(self.processor.temporal_patch_size)
        seconds = frames.indices / frames.fps
        seconds = np.append(seconds, [seconds[-1]] * (-len(seconds) % together))
        times = seconds.reshape(steps, together)[:, [0, -1]].mean(axis=1)
        marked = [f"<{time:.1f} seconds><|vision_start|>{VIDEO}<|vision_end|>" for time in times]
        each = height * width // int(self.processor.merge_size) ** 2
        return replace(visual, text="".join(marked), counts=(each,) * steps)

"""Clips are read as the families' own video processors read them, which need torchvision.

Pixels are resized by pillow here and by torchvision there: both round bicubic values to 8 bits, and
may differ by a step or two of 1/255 (divided by the channel's deviation, about 0.26 or 0.5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")

from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.inputs.decoded import DecodedItem, Frames

STEPS = 3 / 255 / 0.26


def clip(frames: int, height: int, width: int) -> Frames:
    """Smooth pictures: noise would be all rounding."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (frames, 5, 7, 3), dtype=np.uint8)
    from PIL import Image

    pixels = np.stack([np.asarray(Image.fromarray(one).resize((width, height))) for one in small])
    indices = np.arange(frames) * 5
    return Frames(pixels, indices, indices / 10.0, 10.0, frames * 5)


def processor(folder: Path, family: str, backbone: VisionLanguage) -> Any:
    """The family's own processor with our pixel budget."""
    import transformers as hf

    makers = {
        "qwen2_vl": (hf.Qwen2VLProcessor, hf.Qwen2VLVideoProcessor),
        "qwen2_5_vl": (hf.Qwen2_5_VLProcessor, hf.Qwen2VLVideoProcessor),
        "qwen3_vl": (hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor),
    }
    make, video = makers[family]
    images = backbone.processor
    low, high = backbone.settings.min_pixels, backbone.settings.max_frame_pixels
    size = {"shortest_edge": low, "longest_edge": high}
    videos = video(
        size=size,
        patch_size=images.patch_size,
        temporal_patch_size=images.temporal_patch_size,
        merge_size=images.merge_size,
        image_mean=images.image_mean,
        image_std=images.image_std,
        do_sample_frames=False,
    )
    return make(image_processor=images, tokenizer=backbone.tokenizer, video_processor=videos)


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(4, 60, 90), (6, 100, 56), (2, 200, 120)])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_clips_are_those_of_the_video_processor(
    family: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    from transformers.video_utils import VideoMetadata

    backbone = load_vision_language(tiny_vlm(family, tmp_path))
    if family == "qwen3_vl":  # its video processor bounds a clip, and not each frame
        backbone = backbone.with_settings(min_pixels=1024, max_frame_pixels=1024 * 64)
    frames = clip(*shape)
    row = backbone.prepare([DecodedItem((frames, "words"))])[0]
    theirs = processor(tmp_path, family, backbone)
    if family == "qwen3_vl":
        total = len(frames.pixels) * 1024 * 64
        theirs.video_processor.size = {"shortest_edge": 1024, "longest_edge": total}
    text = backbone.tokenizer.decode(row.input_ids)
    start, stop = row.spans["media"][0]
    before, after = (
        backbone.tokenizer.decode(part) for part in (row.input_ids[:start], row.input_ids[stop:])
    )
    assert text.startswith(before)
    metadata = VideoMetadata(
        total_num_frames=frames.total, fps=frames.fps, frames_indices=frames.indices.tolist()
    )
    marker = "<|vision_start|><|video_pad|><|vision_end|>"
    if family == "qwen3_vl":
        # The clip's own text has markers around each step; the model's first processor took the
        # outer ones away, and this one leaves them.
        marker = "<|video_pad|>"
    found = theirs(
        text=[before + marker + after],
        videos=[torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    torch.testing.assert_close(row.extras["video_grid_thw"], found["video_grid_thw"])
    assert row.input_ids == found["input_ids"][0].tolist()
    values = backbone.media_arguments(row.extras)["pixel_values_videos"]
    difference = (values - found["pixel_values_videos"]).abs()
    assert difference.max() <= STEPS
    assert difference.mean() <= STEPS / 6
    if family == "qwen2_5_vl":
        torch.testing.assert_close(
            row.extras["second_per_grid_ts"].float(),
            torch.as_tensor(found["second_per_grid_ts"]).float(),
            rtol=0.0,
            atol=1e-4,
        )


@pytest.mark.parity
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_images_are_those_of_the_torchvision_processor(family: str, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    backbone = load_vision_language(tiny_vlm(family, tmp_path))
    other = AutoImageProcessor.from_pretrained(tmp_path, backend="torchvision")
    image = Image.fromarray(clip(2, 60, 90).pixels[0]).resize((150, 110))
    row = backbone.prepare([DecodedItem((image,))])[0]
    size = {
        "shortest_edge": backbone.settings.min_pixels,
        "longest_edge": backbone.settings.max_pixels,
    }
    found = other(images=[image], size=size, return_tensors="pt")
    torch.testing.assert_close(row.extras["image_grid_thw"], found["image_grid_thw"])
    values = backbone.media_arguments(row.extras)["pixel_values"]
    assert (values - found["pixel_values"]).abs().max() <= STEPS


def _frames(family: str, backbone: VisionLanguage, frames: Frames) -> torch.Tensor:
    """``(t, 3, h, w)`` of the family's own video processor, at the size of one tile."""
    import transformers as hf

    makers = {
        "llava_onevision": hf.LlavaOnevisionVideoProcessor,
        "internvl": hf.InternVLVideoProcessor,
    }
    images = backbone.processor
    own = makers[family](
        size={"height": 32, "width": 32},
        image_mean=images.image_mean,
        image_std=images.image_std,
        do_sample_frames=False,
    )
    videos = [torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)]
    found: torch.Tensor = own(videos=videos, return_tensors="pt")["pixel_values_videos"][0]
    return found


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(4, 60, 90), (6, 100, 56), (2, 200, 120)])
@pytest.mark.parametrize("family", ["llava_onevision", "internvl"])
def test_frames_are_those_of_the_video_processor(
    family: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    backbone = load_vision_language(tiny_vlm(family, tmp_path))
    frames = clip(*shape)
    row = backbone.prepare([DecodedItem((frames, "words"))])[0]
    name = "pixel_values_videos" if family == "llava_onevision" else "pixel_values"
    difference = (row.extras[name] - _frames(family, backbone, frames)).abs()
    assert difference.max() <= STEPS
    assert difference.mean() <= STEPS / 6


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(20, 30), (60, 90), (100, 56), (200, 130), (31, 300)])
def test_tiles_of_phi_are_those_of_its_processor(shape: tuple[int, int], tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    backbone = load_vision_language(tiny_vlm("phi4_multimodal", tmp_path))
    theirs = AutoImageProcessor.from_pretrained(tmp_path)
    height, width = shape
    image = Image.fromarray(clip(2, height, width).pixels[0])
    row = backbone.prepare([DecodedItem((image,))])[0]
    found = theirs(images=[image], return_tensors="pt")
    torch.testing.assert_close(row.extras["image_sizes"], found["image_sizes"])
    torch.testing.assert_close(row.extras["tile_masks"], found["image_attention_mask"][0].bool())
    (first, stop) = row.spans["visual"][0]
    assert stop - first == _tokens_of(found)
    difference = (row.extras["tiles"] - found["image_pixel_values"][0]).abs()
    assert difference.max() <= 4 / 255 / 0.5
    assert difference.mean() <= 1 / 255 / 0.5


def _tokens_of(found: Any) -> int:
    """Its processor counts 256 + 16 tokens of the whole, which are 4 + 2 at this size."""
    return int(found["num_img_tokens"][0]) - 272 + 6

"""A clip takes no more tokens than it may, whatever its length."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.backbones.vlm.clips import distinct, thinned
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import DecodedItem, Frames
from mmembed.presets import read_preset


def clip(frames: int, height: int, width: int) -> Frames:
    pixels = np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    indices = np.arange(frames) * 5
    return Frames(pixels, indices, indices / 10.0, 10.0, frames * 5)


def visual_tokens(row: Row) -> int:
    return sum(stop - start for start, stop in row.spans["visual"])


def test_every_family_keeps_to_the_cap(backbone: VisionLanguage, family: str) -> None:
    if "video" not in backbone.modalities:
        pytest.skip(f"{family} reads no clips")
    item = DecodedItem((clip(8, 60, 90), "words"))
    (whole,) = backbone.with_settings(max_clip_tokens=None).prepare([item])
    cap = visual_tokens(whole) // 3
    capped = backbone.with_settings(max_clip_tokens=cap)
    (row,) = capped.prepare([item])
    assert 0 < visual_tokens(row) <= cap
    # What fits is left as it is, and images are no clips.
    (same,) = backbone.with_settings(max_clip_tokens=visual_tokens(whole)).prepare([item])
    assert same.input_ids == whole.input_ids


@pytest.mark.parity
@pytest.mark.parametrize(("frames", "shape"), [(4, (480, 640)), (30, (480, 640)), (64, (120, 90))])
def test_frames_are_resized_as_the_official_code_resizes_them(
    loaded: dict[str, VisionLanguage], frames: int, shape: tuple[int, int]
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    vlm = read_preset("qwen3_vl_embedding").vlm
    names = ("min_frame_pixels", "max_frame_pixels", "max_clip_tokens")
    model = loaded["qwen3_vl"].with_settings(**{name: getattr(vlm, name) for name in names})
    # The rule of qwen-vl-utils: 7680 tokens of 32 x 32 pixels over all pairs of frames.
    a_frame = max(min(768 * 1024, 7680 * 1024 / frames * 2), int(128 * 1024 * 1.05))
    expected = smart_resize(*shape, factor=32, min_pixels=128 * 1024, max_pixels=int(a_frame))
    _, grid, tokens = model.pixels.clip(clip(frames, *shape))  # type: ignore[attr-defined]
    patch = int(model.processor.patch_size)
    assert (grid[0, 1:] * patch).tolist() == list(expected)
    assert tokens == frames // 2 * expected[0] * expected[1] // 1024 <= 7680


def test_fewer_frames_keep_both_ends() -> None:
    frames = clip(9, 4, 4)
    for count in range(1, 10):
        few = thinned(frames, count)
        assert len(distinct(few)) == count
        assert len(few.pixels) % 2 == 0
        assert few.indices[0] == 0
        assert count == 1 or few.indices[-1] == frames.indices[-1]
        np.testing.assert_array_equal(few.seconds, few.indices / 10.0)

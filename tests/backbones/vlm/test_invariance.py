"""What a vector depends on: its item alone, at the model's own positions, after its last norm."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlm import REFERENCE
from torch import Tensor

from mmembed import Embedder
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.embedder import EmbedderConfig
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import DecodedItem, Frames

MROPE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


def picture(height: int, width: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def frames_of(count: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 255, (count, 40, 56, 3), dtype=np.uint8)


def clip(count: int, seed: int) -> Frames:
    indices = np.arange(count) * 5
    return Frames(frames_of(count, seed), indices, indices / 10.0, 10.0, count * 5)


def inputs_of(backbone: VisionLanguage) -> list[Any]:
    """Texts, pictures, several pictures, clips, and fusions of them."""
    found: list[Any] = [
        "two dogs in the snow",
        "a",
        "",
        picture(60, 90, 1),
        picture(90, 40, 2),
        {"text": "a red bicycle", "image": picture(60, 40, 3), "instruction": "Find it"},
        {"image": [picture(40, 40, 4), picture(50, 90, 5)], "text": "both"},
    ]
    if "video" in backbone.modalities:
        found += [
            {"video": frames_of(4, 6)},
            {"video": frames_of(3, 7), "text": "a dance", "image": picture(50, 50, 8)},
        ]
    return found


@torch.inference_mode()
def states(backbone: VisionLanguage, rows: list[Row]) -> Tensor:
    return backbone(backbone.collate(rows)).hidden


def test_vectors_depend_on_no_batch_order_mix_or_size(backbone: VisionLanguage) -> None:
    model = Embedder(backbone, EmbedderConfig(pooling="last", batch_tokens=100_000))
    inputs = inputs_of(backbone)
    alone = np.stack([model.encode(one) for one in inputs])
    distances = 1 - alone @ alone.T + np.eye(len(inputs))
    assert distances.min() > 1e-5  # the items can be told apart at all
    rng = random.Random(0)
    for batch_tokens in (1, 80, 400, 100_000):
        chosen = rng.choices(range(len(inputs)), k=6)  # some twice, any modality missing
        some = Embedder(backbone, EmbedderConfig(pooling="last", batch_tokens=batch_tokens))
        found = some.encode([inputs[i] for i in chosen])
        np.testing.assert_allclose(found, alone[chosen], atol=1e-5)


def test_states_come_after_the_last_norm_and_no_logits_are_made(backbone: VisionLanguage) -> None:
    language: Any = backbone.language_model
    norm = language.final_norm if hasattr(language, "final_norm") else language.norm
    seen: list[Tensor] = []
    hook = norm.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        found = states(backbone, backbone.prepare([DecodedItem((picture(40, 40, 1), "red"))]))
    finally:
        hook.remove()
    torch.testing.assert_close(seen[-1].reshape(found.shape), found, rtol=0, atol=0)
    assert not any(name.endswith("lm_head") for name, _ in backbone.named_modules())


def test_one_batch_leaves_nothing_to_the_next(backbone: VisionLanguage) -> None:
    words = backbone.prepare([DecodedItem(("two dogs",)), DecodedItem(("a red bicycle",))])
    media = backbone.prepare([DecodedItem((picture(90, 60, 1), "seen", picture(40, 80, 2)))])
    before = states(backbone, words)
    first = states(backbone, media)
    assert torch.equal(states(backbone, words), before)
    assert torch.equal(states(backbone, media), first)


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", MROPE)
def test_positions_of_images_and_clips_are_the_models_own(
    family: str, loaded: dict[str, VisionLanguage], side: str
) -> None:
    backbone = loaded[family]
    rows = backbone.prepare(
        [
            DecodedItem(("before", clip(4, 1), "between", picture(60, 90, 2), "after")),
            DecodedItem(("words alone, of another length",)),
            DecodedItem((picture(40, 40, 3), clip(2, 4), picture(90, 50, 5))),
            DecodedItem((clip(6, 6),)),
        ]
    )
    longest = max(row.tokens for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(0, row.tokens) if side == "right" else slice(longest - row.tokens, longest)
        ids[i, where] = torch.tensor(row.input_ids)
        mask[i, where] = 1
    given = {**backbone.media_inputs(rows), **REFERENCE[family](backbone, ids, rows)}
    kinds = given.pop("mm_token_type_ids")
    known = {name: t for name, t in given.items() if not name.startswith("pixel")}
    expected, _ = backbone.model.get_rope_index(ids, kinds, attention_mask=mask, **known)  # type: ignore[operator]
    for i, row in enumerate(rows):
        found = row.extras["positions"]
        torch.testing.assert_close(found, expected[:, i, mask[i].bool()])
        plain = torch.equal(found, torch.arange(row.tokens).expand(3, -1))
        assert plain == ("visual" not in row.spans)


def test_bfloat16_models_give_float32_vectors_near_their_own(backbone: VisionLanguage) -> None:
    half = copy.deepcopy(backbone).to(torch.bfloat16)
    inputs = inputs_of(backbone)
    config = EmbedderConfig(pooling="mean")
    found = Embedder(half, config).encode(inputs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert (found * Embedder(backbone, config).encode(inputs)).sum(axis=1).min() > 0.99

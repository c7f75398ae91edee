"""Published two-tower checkpoints by their own conventions, on tiny weights in their layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmembed import Embedder
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.errors import ModelLoadError
from mmembed.presets import find_preset

CHECKPOINTS = {
    "openai/clip-vit-base-patch32": ("clip", "clip"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("clip", "clip"),
    "BAAI/BGE-VL-large": ("bge_vl_clip", "clip"),
    "OFA-Sys/chinese-clip-vit-base-patch16": ("chinese_clip", "chinese_clip"),
    "google/siglip-so400m-patch14-384": ("siglip", "siglip"),
    "google/siglip2-so400m-patch14-384": ("siglip2", "siglip"),
    "google/siglip2-base-patch16-naflex": ("siglip2", "siglip2"),
    "kakaobrain/align-base": ("align", "align"),
    "Salesforce/blip-itm-large-coco": ("blip", "blip"),
    "Salesforce/blip2-itm-vit-g": ("blip2", "blip2"),
}
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("checkpoint", sorted(CHECKPOINTS))
def test_a_checkpoint_is_known_by_its_name_and_loads(checkpoint: str, tmp_path: Path) -> None:
    name, family = CHECKPOINTS[checkpoint]
    folder = tiny_towers(family, tmp_path / checkpoint.rpartition("/")[2])
    for known_as in (checkpoint, folder):
        preset = find_preset(known_as)
        assert preset is not None
        assert preset.name == name
    model = Embedder.from_pretrained(folder, device="cpu")
    plain = Embedder.from_pretrained(folder, device="cpu", preset="none")
    for item in ("a dog", PHOTO):
        np.testing.assert_allclose(model.encode(item), plain.encode(item), atol=1e-6)


@pytest.mark.parity
def test_bge_vl_adds_the_outputs_of_its_towers(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    folder = tiny_towers("clip", tmp_path / "BGE-VL-base")
    theirs = CLIPModel.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)(["make it dark"], return_tensors="pt")
    kept = {name: words[name] for name in ("input_ids", "attention_mask")}
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(PHOTO, return_tensors="pt")
    with torch.inference_mode():
        text = theirs.get_text_features(**kept).pooler_output
        image = theirs.get_image_features(**pixels).pooler_output
    expected = F.normalize(text + image, dim=1)[0]
    model = Embedder.from_pretrained(folder, device="cpu")
    found = model.encode({"text": "make it dark", "image": PHOTO})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_preset_for_another_kind_of_model_is_an_error(tmp_path: Path) -> None:
    folder = tiny_towers("siglip", tmp_path / "towers")
    with pytest.raises(ModelLoadError, match="model_type is 'siglip', and preset 'clip'"):
        Embedder.from_pretrained(folder, preset="clip", device="cpu")

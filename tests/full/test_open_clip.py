"""What needs torchvision and open_clip, which have an environment of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from mmembed import Embedder  # noqa: E402
from mmembed.backbones.open_clip_tower import OpenClipTower  # noqa: E402
from mmembed.backbones.vision import load_vision_tower  # noqa: E402
from mmembed.errors import ModelLoadError  # noqa: E402

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> OpenClipTower:
    file = tmp_path_factory.mktemp("configs") / "tiny-vit.json"
    file.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    return OpenClipTower("tiny-vit")


def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@torch.inference_mode()
def test_patch_states_are_those_of_open_clip(tower: OpenClipTower) -> None:
    pixels = tower.pixels(photo())[None]
    found = tower(pixels)
    assert found.shape == (1, tower.patches, tower.channels) == (1, 16, 64)
    mean, std = torch.tensor(tower.mean), torch.tensor(tower.std)
    scaled = ((pixels / 255.0 - mean) / std).permute(0, 3, 1, 2)
    pooled, tokens = tower.network(scaled)
    torch.testing.assert_close(found, tokens, rtol=1e-4, atol=1e-5)
    assert pooled.shape == (1, 16)


@torch.inference_mode()
def test_saved_towers_load(tower: OpenClipTower, tmp_path: Path) -> None:
    tower.save_pretrained(tmp_path)
    again = load_vision_tower(tmp_path)
    pixels = tower.pixels(photo())[None]
    torch.testing.assert_close(again(pixels), tower(pixels))


def test_unknown_models_are_named(tower: OpenClipTower) -> None:
    with pytest.raises(ModelLoadError, match="no-such-model"):
        OpenClipTower("no-such-model")


def test_mini_works_beside_torchvision(samples: Path) -> None:
    model = Embedder.from_pretrained("mini")
    image = sorted((samples / "figures").glob("*.jpg"))[0]
    vectors = model.encode(["a map", image])
    assert vectors.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

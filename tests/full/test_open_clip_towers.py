"""open_clip's models as embedders: the vectors are open_clip's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from mmembed import Embedder  # noqa: E402
from mmembed.errors import ModelLoadError  # noqa: E402

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-clip": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "tiny-sigmoid": {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
    },
    "coca_tiny": {
        "embed_dim": 16,
        "vision_cfg": {
            **VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    },
}
TEXTS = ["two dogs in the snow", "a map", "word " * 50]
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    for seed in (1, 2)
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of random weights for a tiny model that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("open_clip")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")

    def file(name: str) -> Path:
        found = folder / f"{name}.pt"
        if not found.exists():
            torch.manual_seed(0)
            torch.save(open_clip.create_model(name, load_weights=False).state_dict(), found)
        return found

    return file


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_vectors_are_those_of_open_clip(
    name: str, weights: Callable[[str], Path], tmp_path: Path
) -> None:
    file = weights(name)
    theirs, preprocess = open_clip.create_model_from_pretrained(name, pretrained=str(file))
    theirs.eval()
    with torch.inference_mode():
        texts = theirs.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
        pixels = torch.stack([preprocess(picture) for picture in PICTURES])
        images = theirs.encode_image(pixels, normalize=True)
    model = Embedder.from_pretrained(f"open_clip:{name}@{file}", device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), texts.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.encode(PICTURES), images.numpy(), atol=1e-5)
    fused = model.encode({"text": TEXTS[0], "image": PICTURES[0]})
    expected = torch.nn.functional.normalize(texts[0] + images[0], dim=0)
    np.testing.assert_allclose(fused, expected.numpy(), atol=1e-5)

    model.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(again.encode(PICTURES), model.encode(PICTURES), atol=1e-6)
    own, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'saved'}")
    with torch.inference_mode():
        found = own.eval().encode_image(pixels, normalize=True)
    np.testing.assert_allclose(found.numpy(), images.numpy(), atol=1e-5)


def test_vectors_do_not_depend_on_neighbours(weights: Callable[[str], Path]) -> None:
    model = Embedder.from_pretrained(f"open_clip:tiny-clip@{weights('tiny-clip')}", device="cpu")
    inputs = [*TEXTS, *PICTURES, {"text": "x", "image": PICTURES[0]}]
    alone = np.stack([model.encode(each) for each in inputs])
    np.testing.assert_allclose(model.encode(inputs), alone, atol=2e-6)
    assert model.count_tokens(["a map", "word " * 50]) == [4, 52]


def test_task_adapters_train_its_feed_forward_layers(weights: Callable[[str], Path]) -> None:
    model = Embedder.from_pretrained(f"open_clip:tiny-clip@{weights('tiny-clip')}", device="cpu")
    model.adapters.add("own", rank=2, alpha=8.0)
    changed = model.adapters.modules("own")
    assert {name.split(".transformer.")[0] for name in changed} == {"model", "model.visual"} or {
        name.split("transformer.")[0] for name in changed
    } == {"model.", "model.visual."}


def test_models_without_weights_are_refused(weights: Callable[[str], Path]) -> None:
    weights("tiny-clip")
    with pytest.raises(ModelLoadError, match="'tiny-clip' has no pretrained weights"):
        Embedder.from_pretrained("open_clip:tiny-clip")
    with pytest.raises(ModelLoadError, match="'no-such' is none"):
        Embedder.from_pretrained("open_clip:no-such")

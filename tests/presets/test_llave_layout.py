"""LLaVE's folders in the format of LLaVA's own code: its names, its configuration, no processor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmembed import Embedder
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.backbones.vlm.tiny.shared import TEXT, tokenizer
from mmembed.errors import ModelLoadError

# As llava/model/builder.py of LLaVA-NeXT names them, by transformers' names.
NAMES = {
    r"^vision_tower\.": "model.vision_tower.vision_tower.vision_model.",
    r"^multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
    r"^image_newline$": "model.image_newline",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
}
PIXELS = np.random.default_rng(1).integers(0, 255, (60, 90, 3), dtype=np.uint8)
INPUTS: list[Any] = [
    Image.fromarray(PIXELS),
    "a cat and a dog",
    {"image": [Image.fromarray(PIXELS), Image.fromarray(PIXELS[:40, :40])], "text": "both"},
    {"video": np.stack([PIXELS, PIXELS[::-1]])},
]


def as_llava(source: Path, folder: Path) -> dict[str, Any]:
    """The checkpoint of a tiny LLaVA-OneVision in LLaVA's own format; its configuration."""
    folder.mkdir()
    state = load_file(source / "model.safetensors")
    renamed = {"model.vision_tower.vision_tower.vision_model.head.probe": torch.zeros(1, 1, 32)}
    for key, tensor in state.items():
        found = [re.sub(old, new, key) for old, new in NAMES.items() if re.match(old, key)]
        renamed[found[0]] = tensor
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    theirs = json.loads((source / "config.json").read_text())
    config = {
        **TEXT,
        "model_type": "llava_qwen",
        "architectures": ["LlavaQwenForCausalLM"],
        "vocab_size": theirs["text_config"]["vocab_size"],
        "rope_theta": 5000.0,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": theirs["image_grid_pinpoints"],
        "mm_hidden_size": 32,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
    }
    (folder / "config.json").write_text(json.dumps(config))
    # Two rows of the vocabulary are spare, as in Qwen's.
    tokenizer(["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>").save_pretrained(folder)
    return config


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as transformers saves it, with SigLIP's scale."""
    folder = tiny_vlm("llava_onevision", tmp_path_factory.mktemp("hf") / "LLaVE-2B-hf")
    for name, changes in (
        (
            "config.json",
            {
                "text_config": {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}},
                "vision_config": {"num_attention_heads": 1},
            },
        ),
        ("preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
    ):
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            content[key] = {**content[key], **value} if isinstance(value, dict) else value
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parity
def test_the_published_layout_gives_the_vectors_of_the_converted_one(
    reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "LLaVE-2B"
    as_llava(reference, folder)
    model = Embedder.from_pretrained(folder)
    expected = Embedder.from_pretrained(reference, preset="llave").encode(INPUTS)
    np.testing.assert_allclose(model.encode(INPUTS), expected, atol=1e-6)
    model.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(again.encode(INPUTS), expected, atol=1e-6)


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state[name]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def with_value(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


_TOWER = "model.vision_tower.vision_tower.vision_model"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("model.mm_projector.2.bias"), r"multi_modal_projector\.linear_2\.bias is missing"),
        (without("model.image_newline"), "image_newline is missing"),
        (
            without(f"{_TOWER}.embeddings.patch_embedding.weight"),
            r"patch_embedding\.weight is missing",
        ),
        (with_value(mm_projector_type="linear"), "mm_projector_type is 'linear'"),
        (with_value(mm_vision_tower="openai/clip-vit-large-patch14-336"), "before SigLIP"),
        (with_value(vocab_size=259), "no room for <video>"),
    ],
)
def test_what_differs_is_named(
    change: Callable[[Path], None], named: str, reference: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "LLaVE-2B"
    as_llava(reference, folder)
    change(folder)
    with pytest.raises(ModelLoadError, match=named):
        Embedder.from_pretrained(folder)

"""Token vectors of ColPali, ColIdefics3 and ColModernVBERT, as published recipes give them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from published import copy_of, picture

IMAGE = picture(60, 90, 1)
PAD = "<pad>" * 10
TURN = "<end_of_utterance>"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("late")


def head() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(32, 128)


def save_as(folder: Path, rename: dict[str, str], name: str, layer: nn.Linear) -> None:
    """Tensors under the engine's names, with its projection."""
    state: dict[str, Tensor] = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        for pattern, replacement in rename.items():
            key, times = re.subn(pattern, replacement, key)
            if times:
                break
        state[key] = tensor
    state |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def processed(folder: Path, prompt: str, **options: Any) -> dict[str, Tensor]:
    """Ids of a prompt, and pixels where it has a picture of which every tile is ``<image>``."""
    from transformers import AutoImageProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    media: dict[str, Any] = {}
    if options:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        media = dict(processor(images=options["images"], return_tensors="pt"))
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **media}


def vectors(states: Tensor, layer: nn.Linear) -> Any:
    return F.normalize(layer(states[0]), dim=-1).numpy()


PALIGEMMA_LAYOUTS: dict[str, dict[str, str]] = {
    "old": {
        r"^vision_tower\.": "model.vision_tower.vision_model.",
        r"^": "model.",
    },
    "new": {
        r"^language_model\.model\.": "model.model.language_model.",
        r"^language_model\.lm_head": "model.lm_head",
        r"^": "model.model.",
    },
}


@pytest.mark.parity
@pytest.mark.parametrize("layout", sorted(PALIGEMMA_LAYOUTS))
@torch.inference_mode()
def test_colpali_as_its_engine_saves_it(layout: str, cache: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = copy_of("paligemma", tmp_path / "colpali-v1.3-merged", cache)
    plain = copy_of("paligemma", tmp_path / "plain", cache)
    layer = head()
    save_as(folder, PALIGEMMA_LAYOUTS[layout], "custom_text_proj", layer)
    model = Embedder.from_pretrained(folder)
    reference = AutoModel.from_pretrained(plain, dtype=torch.float32).eval()
    count = (
        reference.config.vision_config.image_size // reference.config.vision_config.patch_size
    ) ** 2
    seen = "<image>" * count + "<bos><bos>Describe the image.\n"
    page = processed(plain, seen, images=[IMAGE])
    page["token_type_ids"] = torch.zeros_like(page["input_ids"])
    query = processed(plain, f"<bos>two dogs{PAD}")
    expected = [vectors(reference(**given).last_hidden_state, layer) for given in (page, query)]
    found = [
        model.encode_document(IMAGE, output="multi"),
        model.encode_query("two dogs", output="multi"),
    ]
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parity
@torch.inference_mode()
def test_colpali_as_transformers_saves_it(cache: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, ColPaliConfig, ColPaliForRetrieval

    folder = copy_of("paligemma", tmp_path / "colpali-v1.3-hf", cache)
    plain = copy_of("paligemma", tmp_path / "plain", cache)
    config = ColPaliConfig(
        vlm_config=AutoConfig.from_pretrained(plain).to_dict(),
        text_config=AutoConfig.from_pretrained(plain).text_config.to_dict(),
    )
    reference = ColPaliForRetrieval(config).eval()
    reference.vlm.load_state_dict(AutoModel.from_pretrained(plain).state_dict())
    reference.embedding_proj_layer.load_state_dict(head().state_dict())
    reference.save_pretrained(folder)
    model = Embedder.from_pretrained(folder)
    count = (
        config.vlm_config.vision_config.image_size // config.vlm_config.vision_config.patch_size
    ) ** 2
    page = processed(plain, "<image>" * count + "<bos>Describe the image.\n", images=[IMAGE])
    page["token_type_ids"] = torch.zeros_like(page["input_ids"])
    query = processed(plain, f"<bos>Question: two dogs{PAD}\n")
    for given, found in (
        (page, model.encode_document(IMAGE, output="multi")),
        (query, model.encode_query("two dogs", output="multi")),
    ):
        np.testing.assert_allclose(found, reference(**given).embeddings[0].numpy(), atol=1e-5)


def tiles(folder: Path, before: str) -> dict[str, Tensor]:
    """Idefics3's own expansion of one picture, written out."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    seen = processor(images=[[IMAGE]], return_row_col_info=True, return_tensors="pt")
    config = AutoConfig.from_pretrained(folder)
    factor = getattr(config, "pixel_shuffle_factor", None) or config.scale_factor
    side = config.vision_config.image_size // config.vision_config.patch_size
    one = "<image>" * (side**2 // factor**2)
    text = ""
    for row in range(int(seen["rows"][0][0])):
        for column in range(int(seen["cols"][0][0])):
            text += f"<fake_token_around_image><row_{row + 1}_col_{column + 1}>{one}"
        text += "\n"
    text += ("\n" if text else "") + f"<fake_token_around_image><global-img>{one}"
    prompt = f"{before}User:{text}<fake_token_around_image>Describe the image.{TURN}\nAssistant:"
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": seen["pixel_values"],
        "pixel_attention_mask": seen["pixel_attention_mask"],
    }


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "family", "projection", "before"),
    [
        ("colSmol-256M", "idefics3", "linear", "<|im_start|>"),
        ("colSmol-500M", "smolvlm", "linear", "<|im_start|>"),
        ("colmodernvbert", "modernvbert", "custom_text_proj", "<|begin_of_text|>"),
    ],
)
@torch.inference_mode()
def test_tiled_pages_as_their_engine_saves_them(
    name: str, family: str, projection: str, before: str, cache: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = copy_of(family, tmp_path / name, cache)
    plain = copy_of(family, tmp_path / "plain", cache)
    layer = head()
    prefixed = any(key.startswith("model.") for key in load_file(plain / "model.safetensors"))
    save_as(folder, {} if prefixed else {r"^": "model."}, projection, layer)
    model = Embedder.from_pretrained(folder)
    reference = AutoModel.from_pretrained(plain, dtype=torch.float32).eval()
    page = vectors(reference(**tiles(plain, before)).last_hidden_state, layer)
    np.testing.assert_allclose(model.encode_document(IMAGE, output="multi"), page, atol=1e-5)
    query = processed(plain, f"two dogs{TURN * 10}")
    words = vectors(reference(**query).last_hidden_state, layer)
    np.testing.assert_allclose(model.encode_query("two dogs", output="multi"), words, atol=1e-5)

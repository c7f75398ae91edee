"""Late-interaction presets give the token vectors of the published recipes, in both layouts."""

from __future__ import annotations

import json
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
from mmembed.errors import ConfigError, ModelLoadError

sys.path.insert(0, str(Path(__file__).parent))
from published import copy_of, picture, qwen_states

IMAGE = picture(60, 90, 1)
END = "<|endoftext|>"
SEEN = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>"
    "<|endoftext|>"
)
PIXELS = (3136, 602112)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("late")


def head(width: int = 32) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width, 128)


def rewrite(folder: Path, rename: dict[str, str], **more: Tensor) -> None:
    """Give the checkpoint's tensors other names, first match first, and more of them."""
    state = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        for pattern, replacement in rename.items():
            key, times = re.subn(pattern, replacement, key)
            if times:
                break
        state[key] = tensor
    save_file({**state, **more}, folder / "model.safetensors", metadata={"format": "pt"})


def projected(states: Tensor, layer: nn.Linear) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        found: np.ndarray[Any, Any] = F.normalize(layer(states), dim=-1).numpy()
    return found


# Names of tensors as colpali-engine has saved them over time.
QWEN_LAYOUTS: dict[str, dict[str, str]] = {
    "old": {},
    "the model alone": {r"^model\.": "language_model."},
    "with a head": {r"^model\.": "model.language_model.", r"^visual\.": "model.visual."},
}


@pytest.mark.parity
@pytest.mark.parametrize("layout", sorted(QWEN_LAYOUTS))
@pytest.mark.parametrize(
    ("name", "family"), [("colqwen2-v1.0", "qwen2_vl"), ("colqwen2.5-v0.2", "qwen2_5_vl")]
)
def test_colqwen_as_its_engine_saves_it(
    name: str, family: str, layout: str, cache: Path, tmp_path: Path
) -> None:
    folder = copy_of(family, tmp_path / name, cache)
    plain = copy_of(family, tmp_path / "plain", cache)
    layer = head()
    rewrite(
        folder,
        QWEN_LAYOUTS[layout],
        **{f"custom_text_proj.{key}": value for key, value in layer.state_dict().items()},
    )
    model = Embedder.from_pretrained(folder)
    query = projected(qwen_states(plain, "two dogs" + END * 10, pixels=PIXELS), layer)
    page = projected(qwen_states(plain, SEEN, [IMAGE], pixels=PIXELS), layer)
    np.testing.assert_allclose(model.encode_query("two dogs", output="multi"), query, atol=1e-5)
    np.testing.assert_allclose(model.encode_document(IMAGE, output="multi"), page, atol=1e-5)
    text = projected(qwen_states(plain, "two dogs", pixels=PIXELS), layer)
    np.testing.assert_allclose(model.encode_document("two dogs", output="multi"), text, atol=1e-5)


def test_token_vectors_alone_were_trained(cache: Path, tmp_path: Path) -> None:
    folder = copy_of("qwen2_vl", tmp_path / "colqwen2-v1.0", cache)
    layer = head()
    rewrite(folder, {}, **{f"custom_text_proj.{k}": v for k, v in layer.state_dict().items()})
    model = Embedder.from_pretrained(folder)
    with pytest.raises(ConfigError, match=r"no 'dense' output \(it has: multi\)"):
        model.encode("two dogs")


@pytest.mark.parametrize("missing", ["custom_text_proj.bias", "visual.merger.mlp.0.weight"])
def test_a_missing_tensor_is_an_error_naming_it(missing: str, cache: Path, tmp_path: Path) -> None:
    folder = copy_of("qwen2_vl", tmp_path / "colqwen2-v1.0", cache)
    rewrite(folder, {}, **{f"custom_text_proj.{k}": v for k, v in head().state_dict().items()})
    state = load_file(folder / "model.safetensors")
    del state[missing]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    short = "bias" if "proj" in missing else r"visual\.merger\.mlp\.0\.weight"
    with pytest.raises(ModelLoadError, match=short):
        Embedder.from_pretrained(folder)


@pytest.mark.parametrize("name", ["custom_text_projector.weight", "model.extra.weight"])
def test_a_tensor_without_a_place_is_an_error_naming_it(
    name: str, cache: Path, tmp_path: Path
) -> None:
    folder = copy_of("qwen2_vl", tmp_path / "colqwen2-v1.0", cache)
    layer = {f"custom_text_proj.{k}": v for k, v in head().state_dict().items()}
    rewrite(folder, {}, **layer, **{name: torch.ones(2, 2)})
    with pytest.raises(ModelLoadError, match=f"{name.removeprefix('model.')} has no place"):
        Embedder.from_pretrained(folder)


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["new", "old"])
def test_colqwen2_as_transformers_saves_it(layout: str, cache: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, ColQwen2Config, ColQwen2ForRetrieval

    folder = copy_of("qwen2_vl", tmp_path / "colqwen2-v1.0-hf", cache)
    plain = copy_of("qwen2_vl", tmp_path / "plain", cache)
    config = ColQwen2Config(vlm_config=AutoConfig.from_pretrained(plain).to_dict())
    reference = ColQwen2ForRetrieval(config).eval()
    reference.vlm.load_state_dict(AutoModel.from_pretrained(plain).state_dict())
    reference.embedding_proj_layer.load_state_dict(head().state_dict())
    reference.save_pretrained(folder)
    if layout == "old":
        rewrite(folder, {r"^vlm\.language_model\.": "vlm.model.", r"^vlm\.visual\.": "vlm.visual."})
    model = Embedder.from_pretrained(folder)
    model.save_pretrained(tmp_path / "mine")
    again = Embedder.from_pretrained(tmp_path / "mine")
    for given, role, prompt, images in (
        ("two dogs", "query", f"Query: two dogs{END * 10}\n", []),
        (IMAGE, "document", SEEN, [IMAGE]),
    ):
        found = model.encode(given, role=role, output="multi")
        np.testing.assert_allclose(again.encode(given, role=role, output="multi"), found, atol=1e-6)
        expected = hf_colqwen2(reference, folder, prompt, images)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@torch.inference_mode()
def hf_colqwen2(reference: Any, folder: Path, prompt: str, images: list[Any]) -> Any:
    """ColQwen2ForRetrieval's own vectors, with the positions that it was trained with."""
    from transformers import AutoImageProcessor, AutoTokenizer

    media: dict[str, Any] = {}
    if images:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        size = {"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]}
        media = dict(processor(images=images, size=size, return_tensors="pt"))
        count = int(media["image_grid_thw"].prod()) // 4
        prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * count)
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    kinds = (ids == reference.config.vlm_config.image_token_id).int()
    positions, _ = reference.vlm.get_rope_index(ids, kinds, media.get("image_grid_thw"))
    if images:
        media["pixel_values"] = media["pixel_values"].unsqueeze(0)
    output = reference(input_ids=ids, attention_mask=mask, position_ids=positions, **media)
    return output.embeddings[0].numpy()


@pytest.mark.parity
@pytest.mark.parametrize("old", [False, True])
def test_an_adapter_folder_is_merged_into_the_model_it_names(
    old: bool, cache: Path, tmp_path: Path
) -> None:
    """As peft writes ColQwen2's adapter, with layers of the projection, over the engine's base."""
    base = copy_of("qwen2_vl", tmp_path / "colqwen2-base", cache)
    merged = copy_of("qwen2_vl", tmp_path / "merged", cache)
    layer = head()
    projection = {f"custom_text_proj.{k}": v for k, v in layer.state_dict().items()}
    rewrite(base, QWEN_LAYOUTS["old" if old else "the model alone"], **projection)
    folder = tmp_path / "colqwen2-v1.0"
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    names = [f"layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qkvo"]
    names += [f"layers.{i}.mlp.{p}_proj" for i in (0, 1) for p in ("gate", "up", "down")]
    state = load_file(merged / "model.safetensors")
    adapter, changed = {}, dict(state)
    for name in [*names, "custom_text_proj"]:
        key = f"model.{name}.weight"
        weight = layer.weight.data if name == "custom_text_proj" else state[key]
        down = torch.randn(4, weight.shape[1], generator=generator) * 0.1
        up = torch.randn(weight.shape[0], 4, generator=generator) * 0.1
        if name == "custom_text_proj":
            theirs = name
            layer.weight.data = weight + 2.0 * up @ down
        else:
            theirs = f"model.{name}" if old else f"language_model.{name}"
            changed[key] = weight + 2.0 * up @ down
        adapter[f"base_model.model.{theirs}.lora_A.weight"] = down
        adapter[f"base_model.model.{theirs}.lora_B.weight"] = up
    save_file(changed, merged / "model.safetensors", metadata={"format": "pt"})
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "base_model_name_or_path": str(base),
        "target_modules": r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)"
        r".*$|.*(custom_text_proj).*$)",
        "task_type": "FEATURE_EXTRACTION",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    model = Embedder.from_pretrained(folder)
    page = projected(qwen_states(merged, SEEN, [IMAGE], pixels=PIXELS), layer)
    np.testing.assert_allclose(model.encode_document(IMAGE, output="multi"), page, atol=2e-5)
    broken = {key: value for key, value in adapter.items() if "1.mlp.up_proj" not in key}
    save_file(broken, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1\.mlp\.up_proj"):
        Embedder.from_pretrained(folder)

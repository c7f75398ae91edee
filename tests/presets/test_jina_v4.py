"""jina-embeddings-v4: three tasks, each with its own language model and projection."""

from __future__ import annotations

import json
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

TASKS = ("retrieval", "text-matching", "code")
IMAGE = picture(60, 90, 1)
SEEN = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
)
PIXELS = (3136, 602112)
LAYERS = [
    f"layers.{i}.{part}"
    for i in (0, 1)
    for part in (
        *[f"self_attn.{p}_proj" for p in "qkvo"],
        *[f"mlp.{p}_proj" for p in ("gate", "up", "down")],
    )
]


class Published:
    """A tiny checkpoint in the published layout, and what each task makes of its weights."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = copy_of("qwen2_5_vl", root / "jina-embeddings-v4", root / "cache")
        plain = load_file(self.folder / "model.safetensors")
        torch.manual_seed(1)
        projection = nn.Linear(32, 128)
        state = {
            key.replace("visual.", "model.visual.", 1)
            if key.startswith("visual.")
            else key.replace("model.", "model.language_model.", 1): tensor
            for key, tensor in plain.items()
        }
        state |= {f"multi_vector_projector.{k}": v for k, v in projection.state_dict().items()}
        save_file(state, self.folder / "model.safetensors", metadata={"format": "pt"})
        self.heads: dict[str, nn.Linear] = {}
        self.adapter: dict[str, Tensor] = {}
        for task in TASKS:
            changed = dict(plain)
            for layer in LAYERS:
                change = self._lora(
                    f"model.language_model.{layer}", task, plain[f"model.{layer}.weight"]
                )
                changed[f"model.{layer}.weight"] = plain[f"model.{layer}.weight"] + change
            own = nn.Linear(32, 128)
            own.load_state_dict(projection.state_dict())
            own.weight.data += self._lora("multi_vector_projector", task, own.weight)
            self.heads[task] = own
            target = copy_of("qwen2_5_vl", root / task, root / "cache")
            save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
        adapters = self.folder / "adapters"
        adapters.mkdir()
        self.save_adapter(self.adapter)
        settings = {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 4,
            "target_modules": "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj"
            "|o_proj).*$|.*(single_vector_projector|multi_vector_projector).*$)",
            "exclude_modules": ".*visual.*",
        }
        (adapters / "adapter_config.json").write_text(json.dumps(settings))

    def _lora(self, layer: str, task: str, weight: Tensor) -> Tensor:
        down, up = torch.randn(4, weight.shape[1]) * 0.3, torch.randn(weight.shape[0], 4) * 0.3
        self.adapter[f"base_model.model.{layer}.lora_A.{task}.weight"] = down
        self.adapter[f"base_model.model.{layer}.lora_B.{task}.weight"] = up
        return up @ down

    def save_adapter(self, tensors: dict[str, Tensor]) -> None:
        file = self.folder / "adapters" / "adapter_model.safetensors"
        save_file(tensors, file, metadata={"format": "pt"})

    def states(self, task: str, prompt: str, images: list[Any]) -> Tensor:
        return qwen_states(self.root / task, prompt, images, pixels=PIXELS)

    def dense(self, task: str, prompt: str, images: list[Any]) -> np.ndarray[Any, Any]:
        states = self.states(task, prompt, images)
        if images:  # from the begin marker of the picture to its end marker
            head = len("<|im_start|>user\n") - len("<|im_start|>") + 1
            tail = len("Describe the image.") + len("\n") + 1
            states = states[head:-tail]
        return F.normalize(states.mean(dim=0), dim=0).numpy()

    def multi(self, task: str, prompt: str, images: list[Any]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            found = self.heads[task](self.states(task, prompt, images))
            return F.normalize(found, dim=-1).numpy()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("jina"))


@pytest.mark.parity
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("given", "role", "prompt"),
    [
        ("two dogs", "query", "Query: two dogs"),
        ("two dogs", "document", "Passage: two dogs"),
        (IMAGE, "document", SEEN),
    ],
)
def test_vectors_are_those_of_the_published_recipe(
    task: str, given: Any, role: str, prompt: str, published: Published
) -> None:
    model = Embedder.from_pretrained(published.folder)
    images = [IMAGE] if given is IMAGE else []
    found = model.encode([given], role=role, task=task, output=("dense", "multi"))
    np.testing.assert_allclose(found.dense[0], published.dense(task, prompt, images), atol=2e-5)
    np.testing.assert_allclose(found.multi[0], published.multi(task, prompt, images), atol=2e-5)


def test_rows_of_different_tasks_share_a_batch(published: Published) -> None:
    model = Embedder.from_pretrained(published.folder)
    inputs = ["two dogs", IMAGE, "a cat"]
    tasks = ["code", "retrieval", "text-matching"]
    together = model.encode(inputs, task=tasks, output=("dense", "multi"))
    for i, (one, task) in enumerate(zip(inputs, tasks, strict=True)):
        alone = model.encode([one], task=task, output=("dense", "multi"))
        np.testing.assert_allclose(together.dense[i], alone.dense[0], atol=2e-5)
        np.testing.assert_allclose(together.multi[i], alone.multi[0], atol=2e-5)


def test_retrieval_where_no_task_is_asked_for(published: Published) -> None:
    model = Embedder.from_pretrained(published.folder)
    default = model.encode("two dogs", output="multi")
    np.testing.assert_array_equal(
        default, model.encode("two dogs", task="retrieval", output="multi")
    )
    with pytest.raises(ConfigError, match=r"unknown task 'retrieva', did you mean 'retrieval'"):
        model.encode("two dogs", task="retrieva")


def test_a_saved_model_keeps_its_tasks(published: Published, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(published.folder)
    model.save_pretrained(tmp_path / "mine")
    again = Embedder.from_pretrained(tmp_path / "mine")
    assert again.config == model.config
    for task in TASKS:
        a, b = (
            one.encode([IMAGE, "a"], task=task, output=("dense", "multi")) for one in (model, again)
        )
        np.testing.assert_allclose(a.dense, b.dense, atol=1e-6)
        np.testing.assert_allclose(a.multi[0], b.multi[0], atol=1e-6)


@pytest.mark.parametrize(
    "gone", ["multi_vector_projector.lora_B.code", "1.mlp.up_proj.lora_A.code"]
)
def test_a_missing_tensor_of_a_task_is_an_error_naming_it(gone: str, published: Published) -> None:
    broken = {key: value for key, value in published.adapter.items() if gone not in key}
    try:
        published.save_adapter(broken)
        with pytest.raises(ModelLoadError, match=gone.split(".lora")[0].replace(".", r"\.")):
            Embedder.from_pretrained(published.folder)
    finally:
        published.save_adapter(published.adapter)

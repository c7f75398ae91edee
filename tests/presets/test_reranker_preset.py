"""Qwen3-VL-Reranker gives the scores of its published recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmembed import Embedder, Reranker
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))
from published import picture, qwen_states

IMAGE = picture(60, 90, 1)
SEEN = "<|vision_start|><|image_pad|><|vision_end|>"
JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}<Query>:{query}\n<Document>:{document}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
DEFAULT = "Given a search query, retrieve relevant candidates that answer the query."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the published layout, whose tokenizer has both answers."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    made = tiny_vlm("qwen3_vl", tmp_path_factory.mktemp("reranker") / "Qwen3-VL-Reranker-2B")
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.add_tokens(["yes", "no"])
    model = AutoModelForImageTextToText.from_pretrained(made, dtype=torch.float32)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


CASES: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "text": ("two dogs", "a photo", {"query": "two dogs", "document": "a photo"}),
    "image": ("two dogs", IMAGE, {"query": "two dogs", "document": SEEN}),
    "fused": (
        {"image": IMAGE, "text": "this, in red"},
        {"image": IMAGE, "text": "a red one"},
        {"query": f"{SEEN}this, in red", "document": f"{SEEN}a red one"},
    ),
    "empty": ("two dogs", "", {"query": "two dogs", "document": "NULL"}),
    # As it is given: this model's own code puts no full stop after it.
    "instruction": (
        {"text": "dogs", "instruction": "Find cats"},
        "a cat",
        {"query": "dogs", "document": "a cat", "instruction": "Find cats"},
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", sorted(CASES))
def test_scores_are_those_of_the_published_recipe(case: str, folder: Path) -> None:
    from transformers import AutoTokenizer

    query, document, words = CASES[case]
    prompt = JUDGE.format(**{"instruction": DEFAULT, **words})
    images = [IMAGE] * prompt.count("<|image_pad|>")
    states = qwen_states(folder, prompt, images, pixels=(4096, 1843200), special_tokens=False)
    tensors = load_file(folder / "model.safetensors")
    head = next((t for key, t in tensors.items() if key.endswith("lm_head.weight")), None)
    if head is None:
        head = next(t for key, t in tensors.items() if key.endswith("embed_tokens.weight"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    yes, no = (head[tokenizer.convert_tokens_to_ids(word)] for word in ("yes", "no"))
    expected = torch.sigmoid(states[-1] @ (yes - no)).item()
    assert abs(expected - 0.5) > 1e-5
    model = Reranker.from_pretrained(folder, device="cpu")
    np.testing.assert_allclose(model.score(query, [document]), [expected], atol=1e-5)


def test_a_saved_reranker_keeps_the_conventions(folder: Path, tmp_path: Path) -> None:
    model = Reranker.from_pretrained(folder, device="cpu")
    model.save_pretrained(tmp_path / "mine")
    again = Reranker.from_pretrained(tmp_path / "mine", device="cpu")
    assert again.scorer.backbone.settings == model.scorer.backbone.settings  # type: ignore[attr-defined]
    given = ("two dogs", ["a photo", IMAGE])
    np.testing.assert_allclose(again.score(*given), model.score(*given), atol=1e-6)


def test_an_embedder_s_preset_and_a_reranker_s_are_told_apart(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"reranker: load it by Reranker\.from_pretrained"):
        Embedder.from_pretrained(folder, device="cpu")
    with pytest.raises(ConfigError, match="'gme' is of an embedder"):
        Reranker.from_pretrained(folder, preset="gme", device="cpu")

"""Presets over LLaVA and Llama Vision give the vectors of the published recipes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmembed import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from published import copy_of, last, picture

IMAGE = picture(60, 90, 1)
FUSED = {"text": "a red one", "image": IMAGE}
ASK, ANSWER = (
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n",
)
TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
EMPTY = "<|im_end|>\n<|im_start|>assistant\n\n<|im_end|>\n"
QUERY = {"role": "query", "instruction": "Find it."}

# Folder, family, input, options, prompt, and the picture that the recipe shows to the processor.
RECIPES: dict[str, tuple[str, str, Any, dict[str, Any], str, Image.Image | None]] = {
    "e5_v-text": (
        "e5-v",
        "llava_next",
        "dogs",
        {},
        f"{ASK}dogs\nSummary above sentence in one word: {ANSWER}",
        None,
    ),
    "e5_v-image": (
        "e5-v",
        "llava_next",
        IMAGE,
        {},
        f"{ASK}<image>\nSummary above image in one word: {ANSWER}",
        IMAGE,
    ),
    "unime-text": (
        "UniME-LLaVA-1.6-7B",
        "llava_next",
        "dogs",
        {},
        "[INST] dogs\nSummary above sentence in one word: [/INST]",
        None,
    ),
    "unime-image": (
        "UniME-LLaVA-1.6-7B",
        "llava_next",
        IMAGE,
        {},
        "[INST] <image>\nSummary above image in one word: [/INST]",
        IMAGE,
    ),
    "unime-onevision": (
        "UniME-LLaVA-OneVision-7B",
        "llava_onevision",
        IMAGE,
        {},
        "<|im_start|>user <image>\nSummary above image in one word:\n<|im_end|>"
        "<|im_start|>assistant\n",
        IMAGE,
    ),
    "vlm2vec-llava": (
        "VLM2Vec-LLaVa-Next",
        "llava_next",
        FUSED,
        {"instruction": "Represent the given image with the following question:"},
        "<image> Represent the given image with the following question: a red one",
        IMAGE,
    ),
    "bge-query": (
        "BGE-VL-MLLM-S1",
        "llava_next",
        FUSED,
        QUERY,
        "[INST] \n <instruct> Find it. <query>  a red one \n <image> [/INST]",
        IMAGE.resize((512, 512)),
    ),
    "bge-candidate": (
        "BGE-VL-v1.5-zs",
        "llava_next",
        IMAGE,
        {"role": "document"},
        "[INST]  <image> [/INST]",
        IMAGE.resize((512, 512)),
    ),
    "llave-image": (
        "LLaVE-2B",
        "llava_onevision",
        IMAGE,
        {},
        f"{TURN}<image> Represent the given image.{EMPTY}",
        IMAGE,
    ),
    "llave-text": (
        "LLaVE-2B",
        "llava_onevision",
        "A cat and a dog",
        {},
        f"{TURN}A cat and a dog{EMPTY}",
        None,
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llava")


@torch.inference_mode()
def states(folder: Path, prompt: str, image: Image.Image | None) -> torch.Tensor:
    """The family's own processor and model; only clips would need torchvision."""
    from transformers import (
        AutoImageProcessor,
        AutoModel,
        AutoTokenizer,
        LlavaNextProcessor,
    )

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if image is None:
        return model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0]
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")
    config = model.config
    if config.model_type == "llava_next":
        processor = LlavaNextProcessor(
            image_processor=pictures,
            tokenizer=tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=1,
        )
        inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    else:
        media = pictures(images=[[image]], return_tensors="pt")
        media.pop("batch_num_images", None)
        features = model.get_image_features(
            **media, batch_num_images=torch.tensor([1]), vision_feature_layer=-1
        )
        seen = features.pooler_output if hasattr(features, "pooler_output") else features
        count = len(seen[0]) if isinstance(seen, list | tuple) else len(seen)
        ids = tokenizer(prompt.replace("<image>", "<image>" * count), return_tensors="pt")
        inputs = {**ids, **media, "batch_num_images": torch.tensor([1])}
    return model(**inputs).last_hidden_state[0]


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_vectors_are_those_of_the_published_recipe(name: str, cache: Path, tmp_path: Path) -> None:
    folder_name, family, given, options, prompt, image = RECIPES[name]
    folder = copy_of(family, tmp_path / folder_name, cache)
    vector = Embedder.from_pretrained(folder).encode(given, **options)
    np.testing.assert_allclose(vector, last(states(folder, prompt, image)).numpy(), atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("A cat and a dog", "<|begin_of_text|>A cat and a dog"),
        (IMAGE, "<|image|><|begin_of_text|>Represent the given image.\n"),
        (FUSED, "<|image|><|begin_of_text|>Represent the given image. a red one\n"),
    ],
)
def test_mme5(given: Any, prompt: str, cache: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, MllamaProcessor

    folder = copy_of("mllama", tmp_path / "mmE5-mllama-11b-instruct", cache)
    model = Embedder.from_pretrained(folder)
    options = {"instruction": "Represent the given image."} if given is FUSED else {}
    found = model.encode(given, **options)
    reference = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if given == "A cat and a dog":
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    else:
        tokenizer.bos_token = "<|begin_of_text|>"  # the tiny one names none
        pictures = model.backbone.processor  # type: ignore[attr-defined]
        inputs = MllamaProcessor(pictures, tokenizer)(
            images=[[IMAGE]], text=[prompt], return_tensors="pt"
        )
    with torch.inference_mode():
        states = reference(**inputs).last_hidden_state[0]
    np.testing.assert_allclose(found, last(states).numpy(), atol=1e-5)

"""colpali-engine's own models and processors on the same tiny weights; they need torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("colpali_engine", reason="colpali-engine is not installed")

from mmembed import Embedder
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.search.maxsim import maxsim

QUERIES = ["two dogs", "a table of prices in euros"]


def pages() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (56, 84, 3), dtype=np.uint8)) for _ in range(3)]


# Family of the tiny model, a published name, and the engine's model, projection and processor.
MODELS = {
    "colqwen2-v1.0": ("qwen2_vl", "ColQwen2", "custom_text_proj", "ColQwen2Processor"),
    "colqwen2.5-v0.2": ("qwen2_5_vl", "ColQwen2_5", "custom_text_proj", "ColQwen2_5_Processor"),
    "colpali-v1.3": ("paligemma", "ColPali", "custom_text_proj", "ColPaliProcessor"),
    "colSmol-256M": ("idefics3", "ColIdefics3", "linear", "ColIdefics3Processor"),
    "colmodernvbert": (
        "modernvbert",
        "ColModernVBert",
        "custom_text_proj",
        "ColModernVBertProcessor",
    ),
}


def engine_of(name: str, folder: Path) -> tuple[Any, Any]:
    """The engine's model, with a random projection, and its processor."""
    from colpali_engine import models
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        PaliGemmaForConditionalGeneration,
        Qwen2VLVideoProcessor,
    )

    family, kind, projection, processor_kind = MODELS[name]
    tiny_vlm(family, folder)
    torch.manual_seed(0)
    if family == "paligemma":  # whose tensors stand one level deeper in the engine's model
        plain = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        model = getattr(models, kind)(plain.config).eval()
        model.model.load_state_dict(plain.state_dict())
    else:
        model = getattr(models, kind).from_pretrained(folder, dtype=torch.float32).eval()
    torch.nn.init.normal_(getattr(model, projection).weight, std=0.2)
    # Not torchvision's, which resizes a little differently.
    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or "<end_of_utterance>"
    make = getattr(models, processor_kind)
    if family.startswith("qwen"):
        return model, make(images, tokenizer, Qwen2VLVideoProcessor())
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    if family == "paligemma":
        images.image_seq_length = patches
        return model, make(images, tokenizer)
    return model, make(images, tokenizer, image_seq_len=patches // 4)


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(MODELS))
def test_token_vectors_and_scores_are_the_engine_s(name: str, tmp_path: Path) -> None:
    model, processor = engine_of(name, tmp_path / "plain")
    folder = tmp_path / name
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    ours = Embedder.from_pretrained(folder)
    # One at a time: ColPali's vectors of a shorter query depend on the longer ones beside it.
    batches = (
        [processor.process_queries([query]) for query in QUERIES],
        [processor.process_images([page]) for page in pages()],
    )
    with torch.inference_mode():
        theirs = [[model(**batch)[0] for batch in group] for group in batches]
    queries = ours.encode_query(QUERIES, output="multi")
    documents = ours.encode_document(pages(), output="multi")
    for got, expected in ((queries, theirs[0]), (documents, theirs[1])):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    scores = processor.score_multi_vector(*theirs, device="cpu").numpy()
    np.testing.assert_allclose(maxsim(queries, documents), scores, rtol=1e-5, atol=1e-5)

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


def pages(size: tuple[int, int] = (84, 56)) -> list[Image.Image]:
    """Of sizes that need no resizing, which torchvision and pillow do a little differently."""
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], 3)
    return [Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)) for _ in range(3)]


def engine_of(family: str, folder: Path) -> tuple[Any, Any]:
    """The engine's model, with a random projection, and its processor."""
    from colpali_engine import models
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLVideoProcessor

    names = {
        "qwen2_vl": ("ColQwen2", "ColQwen2Processor"),
        "qwen2_5_vl": ("ColQwen2_5", "ColQwen2_5_Processor"),
    }
    kind, processor_kind = (getattr(models, name) for name in names[family])
    torch.manual_seed(0)
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    torch.nn.init.normal_(model.custom_text_proj.weight, std=0.2)
    images = AutoImageProcessor.from_pretrained(folder)
    processor = processor_kind(
        images, AutoTokenizer.from_pretrained(folder), Qwen2VLVideoProcessor()
    )
    return model, processor


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "name"), [("qwen2_vl", "colqwen2-v1.0"), ("qwen2_5_vl", "colqwen2.5-v0.2")]
)
def test_token_vectors_and_scores_are_the_engine_s(family: str, name: str, tmp_path: Path) -> None:
    model, processor = engine_of(family, tiny_vlm(family, tmp_path / "plain"))
    folder = tmp_path / name
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    ours = Embedder.from_pretrained(folder)
    with torch.inference_mode():
        theirs = []
        for batch in (processor.process_queries(QUERIES), processor.process_images(pages())):
            found = model(**batch)
            mask = batch["attention_mask"].bool()
            theirs.append([row[keep] for row, keep in zip(found, mask, strict=True)])
    queries = ours.encode_query(QUERIES, output="multi")
    documents = ours.encode_document(pages(), output="multi")
    for got, expected in ((queries, theirs[0]), (documents, theirs[1])):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    scores = processor.score_multi_vector(*theirs, device="cpu").numpy()
    np.testing.assert_allclose(maxsim(queries, documents), scores, rtol=1e-5, atol=1e-5)

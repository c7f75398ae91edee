"""Rows of different tasks share a call in every family, with images among them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmembed import Embedder
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.embedder import EmbedderConfig

TASKS = ["code", "", "retrieval", "code", "", "retrieval"]


def picture(height: int, width: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def inputs() -> list[Any]:
    return [
        "two dogs in the snow",
        picture(60, 90, 1),
        {"image": picture(40, 60, 2), "text": "a red bicycle"},
        picture(90, 40, 3),
        "a",
        "page seven",
    ]


def test_rows_of_different_tasks_share_a_call(backbone: VisionLanguage, family: str) -> None:
    model = Embedder(copy.deepcopy(backbone), EmbedderConfig(batch_tokens=100_000))
    plain = model.encode(inputs())
    generator = torch.Generator().manual_seed(0)
    for name in ("code", "retrieval"):
        model.adapters.add(name, rank=2)
        with torch.no_grad():
            for parameter in model.adapters.parameters(name):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    # Llama's rows with images are read apart from the others, so there each task is as well.
    assert model.adapters.stands_apart("code") == (family == "mllama")
    together = model.encode(inputs(), task=TASKS)
    for i, (one, task) in enumerate(zip(inputs(), TASKS, strict=True)):
        np.testing.assert_allclose(together[i], model.encode(one, task=task), atol=1e-5)
        assert (abs(together[i] - plain[i]).max() > 1e-4) == (task != "")

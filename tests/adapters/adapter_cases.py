"""Inputs and steps that the tests of adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmembed.adapters import TaskAdapters
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import DecodedItem

WORDS = ["two dogs in the snow", "a", "one red bicycle on page seven", "dogs", "the snow", "in a"]


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rows_of(backbone: Any) -> list[Row]:
    """Rows of different lengths; images among them where the backbone reads any."""
    items = [DecodedItem((words,)) for words in WORDS]
    if "image" in backbone.modalities:
        items[1] = DecodedItem((picture(0),))
        items[3] = DecodedItem((picture(1), "dogs", picture(2)))
    rows: list[Row] = backbone.prepare(items)
    return rows


def encode(
    backbone: Any,
    adapters: TaskAdapters | None,
    rows: Sequence[Row],
    tasks: Sequence[str],
    *,
    grad: bool = False,
) -> list[Tensor]:
    """Token states of each row, all rows in one batch."""
    batch = backbone.collate(rows)
    with torch.set_grad_enabled(grad):
        if adapters is None:
            return list(backbone.forward(batch).rows())
        with adapters.routed(tasks, [row.tokens for row in rows]):
            return list(backbone.forward(batch).rows())


@torch.no_grad()
def shake(adapters: TaskAdapters, name: str, seed: int) -> None:
    """Give a new adapter the effect of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    with adapters.trainable(name) as parameters:
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # DoRA's lengths stay positive
                parameter.mul_(1.0 + 0.2 * noise.tanh())
            else:
                parameter.copy_(0.2 * noise)


def close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Assert that two lists of states are the same but for float32 rounding."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)

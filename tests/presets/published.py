"""Checkpoints in the layouts of published ones, and their vectors computed plainly.

The recipes here use transformers alone: one row, no padding, the prompt written out.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmembed.backbones.vlm.tiny import tiny_vlm

__all__ = ["copy_of", "last", "picture", "qwen_states"]


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def copy_of(family: str, folder: Path, cache: Path) -> Path:
    """A tiny checkpoint of a family under another folder's name."""
    made = tiny_vlm(family, cache / family)
    return Path(shutil.copytree(made, folder))


def last(states: Tensor) -> Tensor:
    """The usual embedding: the last token's state, normalised."""
    return torch.nn.functional.normalize(states[-1].float(), dim=0)


@torch.inference_mode()
def qwen_states(
    folder: Path,
    prompt: str,
    images: Sequence[Image.Image] = (),
    *,
    pixels: tuple[int, int],
    flat: bool = False,
    special_tokens: bool = True,
) -> Tensor:
    """``(tokens, d)`` states of one prompt with one ``<|image_pad|>`` an image.

    Args:
        pixels: least and most of an image.
        flat: run the inner language model on embeddings, without positions.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    media: dict[str, Any] = {}
    if images:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
        media = dict(processor(images=list(images), size=size, return_tensors="pt"))
        parts = prompt.split("<|image_pad|>")
        counts = [int(grid.prod()) // 4 for grid in media["image_grid_thw"]]
        assert len(parts) == len(counts) + 1
        prompt = parts[0] + "".join(
            "<|image_pad|>" * n + part for n, part in zip(counts, parts[1:], strict=True)
        )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=special_tokens)["input_ids"]
    mask = torch.ones_like(ids)
    if not flat:
        kinds = (ids == model.config.image_token_id).int()
        output = model(input_ids=ids, attention_mask=mask, mm_token_type_ids=kinds, **media)
        return output.last_hidden_state[0]
    embedded = model.get_input_embeddings()(ids)
    if images:
        seen = model.visual(media["pixel_values"], grid_thw=media["image_grid_thw"]).pooler_output
        embedded[ids == model.config.image_token_id] = seen
    return model.language_model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[0]

"""A model that knows colours only, and a code index that knows one function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from mmembed.backbones.vlm.visual import grid_boxes
from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item
from mmembed.inputs.decoded import DecodedPart, Frames, Page
from mmembed.inputs.items import ItemLike
from mmembed.search.model import Encoded, Role

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}


class ColourModel:
    """Texts are the colours they name, media the mean of their pixels: similarity is real."""

    name = "colours"
    fingerprint = "1"
    dim = 8

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        for position, item in enumerate(items):
            try:
                parts = decode_item(item, MediaBudget(max_pixels=4096, max_frames=2)).parts
            except InputError as error:
                yield Encoded(position, error=error.at(position))
                continue
            total = sum((_colour(part) for part in parts), np.zeros(3))
            vector = np.zeros(self.dim, np.float32)
            vector[:3] = total - total.mean()
            vector[3] = 1e-3
            yield Encoded(position, vector / np.linalg.norm(vector))


class ColourPatches(ColourModel):
    """The same with token vectors: one a word, and one a field of a grid of 8 by 6 on a picture."""

    name = "colour patches"
    outputs = ("dense", "multi")
    rows, columns = 8, 6

    def encode_stream(
        self, items: Iterable[ItemLike], /, *, role: Role, output: Sequence[str] = ("dense",)
    ) -> Iterator[Encoded]:
        items = list(items)
        for item, encoded in zip(items, super().encode_stream(items, role=role), strict=True):
            if encoded.error is not None:
                yield encoded
                continue
            part = decode_item(item, MediaBudget(max_pixels=40_000)).parts[0]
            if isinstance(part, Page):
                part = part.image
            if isinstance(part, (str, Frames)):
                yield replace(encoded, multi=encoded.vector[None])
                continue
            small = part.resize((self.columns, self.rows), Image.Resampling.BOX)
            fields = np.asarray(small, np.float32).reshape(-1, 3)
            multi = np.zeros((len(fields) + 1, self.dim), np.float32)  # the first is no field
            multi[1:, :3] = fields - fields.mean(axis=1, keepdims=True)
            multi[:, 3] = 1e-3
            boxes = np.vstack([np.full(4, np.nan), grid_boxes(self.rows, self.columns)])
            multi /= np.linalg.norm(multi, axis=1, keepdims=True)
            yield replace(encoded, multi=multi, boxes=boxes.astype(np.float32))


def _colour(part: DecodedPart) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(part, str):
        named = [COLOURS[word] for word in re.findall(r"\w+", part.lower()) if word in COLOURS]
        return np.sum(named, axis=0) / 255.0 if named else np.zeros(3)
    pixels = (
        part.pixels if isinstance(part, Frames) else part.image if isinstance(part, Page) else part
    )
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 3).mean(axis=0) / 255.0


@dataclass(frozen=True)
class FakeCodeHit:
    path: str = "colour/mix.py"
    start_line: int = 12
    end_line: int = 14
    symbol: str = "mix"
    breadcrumb: str = "colour/mix.py > class Palette > def mix"
    language: str = "python"
    score: float = 0.03
    scores: dict[str, float] = field(default_factory=lambda: {"dense": 0.5, "rrf": 0.03})
    text: str = "def mix(self):\n    <b>not markup</b>\n    return self.red"


class FakeCode:
    def search(self, query: str, k: int = 10) -> list[FakeCodeHit]:
        return [FakeCodeHit()][:k] if "red" in query else []

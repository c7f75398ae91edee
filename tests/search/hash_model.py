"""A model made of hashes, so that tests of the index take no weights and no time.

Texts are bags of words, so texts that share words are similar; media are known by their bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.items import Item, ItemLike, TextPart, parse_item
from mmembed.search.model import Encoded, Role

# The stream is read ahead by this many items, as a real model does.
_WINDOW = 16


class HashModel:
    """Satisfies ``EmbeddingModel``; ``encoded`` lists the labels of what it was asked to encode."""

    def __init__(self, name: str = "hash", dim: int = 64, fingerprint: str = "v1") -> None:
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.encoded: list[str] = []

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        stream = enumerate(items)
        while window := list(islice(stream, _WINDOW)):
            for position, value in window:
                item = parse_item(value)
                if role == "document":
                    self.encoded.append(item.label)
                try:
                    yield Encoded(position, self.vector(item))
                except InputError as error:
                    yield Encoded(position, error=error.at(position))

    def vector(self, item: Item) -> np.ndarray[Any, np.dtype[np.float32]]:
        total = np.zeros(self.dim, np.float32)
        for part in item.parts:
            if isinstance(part, TextPart):
                for word in re.findall(r"\w+", part.text.casefold()):
                    total += self._noise(word.encode())
                total += 0.01 * self._noise(part.text.encode())
                continue
            source = part.source
            data = Path(source).read_bytes() if isinstance(source, str | Path) else bytes(source)
            if data.startswith(b"BAD"):
                raise InputError(part.label, "is broken")
            total += self._noise(data + str(getattr(part, "page", "")).encode())
        return total / np.linalg.norm(total)

    def _noise(self, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        rng = np.random.default_rng(zlib.crc32(data))
        return rng.standard_normal(self.dim).astype(np.float32)

"""The model of hashes, with a vector a word too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hash_model import HashModel

from mmembed.inputs.items import Item, ItemLike, TextPart, parse_item
from mmembed.search.model import Encoded, Role


class TokenModel(HashModel):
    """Satisfies ``MultiVectorModel``."""

    outputs = ("dense", "multi")

    def encode_stream(
        self, items: Iterable[ItemLike], /, *, role: Role, output: Sequence[str] = ("dense",)
    ) -> Iterator[Encoded]:
        parsed: list[Item] = []

        def kept() -> Iterator[Item]:
            for each in items:
                parsed.append(parse_item(each))
                yield parsed[-1]

        for encoded in super().encode_stream(kept(), role=role):
            if encoded.error is None and "multi" in output:
                encoded = replace(encoded, multi=self.tokens(parsed[encoded.position]))
            yield encoded

    def tokens(self, item: Item) -> np.ndarray[Any, np.dtype[np.float32]]:
        words = [
            word
            for part in item.parts
            if isinstance(part, TextPart)
            for word in re.findall(r"\w+", part.text.casefold())
        ]
        rows = [self._noise(word.encode()) for word in words] or [self.vector(item)]
        matrix = np.stack(rows)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

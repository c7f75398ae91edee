"""A model made of hashed words, so that tests of the code index take no weights and no time."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from codeembed.tokenize import words
from mmembed.encoded import Encoded
from mmembed.errors import InputError

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Pieces of words of up to six letters, and punctuation; two more for begin and end."""
    return [len(_TOKEN.findall(text)) + 2 for text in texts]


class WordModel:
    """Satisfies ``CodeModel``; texts that share words get similar vectors.

    Attributes:
        embedded: every document it was asked to embed.
    """

    def __init__(self, name: str = "words", fingerprint: str = "v1", max_tokens: int = 66) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.dim = 64
        self.max_tokens = max_tokens
        self.embedded: list[str] = []

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        return count_tokens(texts)

    def encode_stream(self, items: Iterable[Any], /, *, role: str) -> Iterator[Encoded]:
        for position, text in enumerate(items):
            if role == "document":
                self.embedded.append(text)
            if "POISON" in text:
                yield Encoded(position, error=InputError("text", "is poison"))
            else:
                yield Encoded(position, self._vector(text))

    def _vector(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        total = np.full(self.dim, 1e-3, np.float32)
        for word in words(text):
            rng = np.random.default_rng(zlib.crc32(word.encode()))
            total += rng.standard_normal(self.dim).astype(np.float32)
        return total / np.linalg.norm(total)

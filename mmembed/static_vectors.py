"""Vectors of words alone: a table by token, made from a model by :mod:`mmembed.distilling`.

A text's vector is the sum of its tokens' rows. That is thousands of times faster than the model
and needs neither it nor torch, at the price of everything that depends on the order of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmembed.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["STATIC_NAME", "StaticVectors", "read_tokenizer"]

STATIC_NAME = "static.safetensors"
_MAX_WORDS = 400_000

Floats = npt.NDArray[np.float32]


def read_tokenizer(file: Path) -> Tokenizer:
    """A ``tokenizer.json`` without truncation and padding.

    Raises:
        ModelLoadError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    if not file.is_file():
        raise ModelLoadError(f"{file}: is not there, and static vectors need it")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise ModelLoadError(f"{file}: cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class StaticVectors:
    """A table of token vectors with their tokenizer.

    Args:
        table: ``(vocabulary, d)`` int8.
        scales: ``(vocabulary,)`` float: what a row of the table is multiplied by.
        tokenizer: Whose ids are the rows.

    Raises:
        ModelLoadError: table, scales and tokenizer do not belong together.
    """

    def __init__(
        self, table: npt.NDArray[np.int8], scales: npt.NDArray[Any], tokenizer: Tokenizer
    ) -> None:
        if table.ndim != 2 or scales.shape != table.shape[:1]:
            raise ModelLoadError(f"static table {table.shape} with scales {scales.shape}")
        if tokenizer.get_vocab_size() > len(table):
            raise ModelLoadError(
                f"static table of {len(table)} rows for {tokenizer.get_vocab_size()} tokens: "
                "it was made from another model, run mmembed distill again"
            )
        self._table = table
        self._scales = scales.astype(np.float32)
        self._tokenizer = tokenizer
        self._numbers: dict[str, int] = {}
        self._vectors: Floats = np.empty((1024, table.shape[1]), np.float32)

    @classmethod
    def read(cls, file: Path, tokenizer: Path) -> StaticVectors:
        """Read a file that ``mmembed distill`` wrote.

        Raises:
            ModelLoadError: a file is missing, damaged, or of another model.
        """
        from safetensors.numpy import load_file

        try:
            tensors = load_file(file)
            table, scales = tensors["table"], tensors["scales"]
        except Exception as error:  # the library raises several kinds
            raise ModelLoadError(f"{file}: holds no static vectors: {error}") from error
        return cls(table, scales, read_tokenizer(tokenizer))

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self._table.shape[1])

    @property
    def digest(self) -> str:
        """Changes with the table."""
        state = blake2b(self._scales.tobytes(), digest_size=8)
        state.update(np.ascontiguousarray(self._table[::97]).tobytes())
        return state.hexdigest()

    def of_counts(self, documents: Sequence[Mapping[str, float]]) -> Floats:
        """Unit vectors ``(n, d)`` of bags of words, each with its weight; zero for empty bags."""
        if len(self._numbers) > _MAX_WORDS:
            self._numbers.clear()
        self._learn(word for words in documents for word in words)
        result = np.zeros((len(documents), self.dim), np.float32)
        for row, words in enumerate(documents):
            if words:
                places = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
                weights = np.fromiter(words.values(), np.float32, len(words))
                result[row] = weights @ self._vectors[places]
        return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors ``(n, d)`` of texts; zero for a text without tokens."""
        result = np.zeros((len(texts), self.dim), np.float32)
        for row, ids in enumerate(self._ids(texts)):
            result[row] = self._sum(ids)
        return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)

    def _learn(self, words: Iterable[str]) -> None:
        new = list(dict.fromkeys(word for word in words if word not in self._numbers))
        if not new:
            return
        needed = len(self._numbers) + len(new)
        if needed > len(self._vectors):
            grown = np.empty((2 * needed, self.dim), np.float32)
            grown[: len(self._numbers)] = self._vectors[: len(self._numbers)]
            self._vectors = grown
        for word, ids in zip(new, self._ids(new), strict=True):
            place = len(self._numbers)
            self._vectors[place] = self._sum(ids)
            self._numbers[word] = place

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [each.ids for each in encoded]

    def _sum(self, ids: Sequence[int]) -> Floats:
        rows = self._table[ids].astype(np.float32) * self._scales[ids, None]
        return np.asarray(rows.sum(axis=0), np.float32)

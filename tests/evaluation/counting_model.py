"""A small honest text model: hashed words, so that scores are neither perfect nor constant."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np


class CountingModel:
    """``(n, 256)`` counts of hashed words; knows texts only, and counts what it was asked."""

    name = "words"

    def __init__(self, width: int = 256) -> None:
        self.width = width
        self.asked = 0

    def encode_query(self, inputs: Any, instruction: str | None = None) -> np.ndarray[Any, Any]:
        return self._encode([f"{instruction or ''}{text}" for text in inputs])

    def encode_document(self, inputs: Any) -> np.ndarray[Any, Any]:
        return self._encode(list(inputs))

    def _encode(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.asked += len(texts)
        found = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", str(text).lower()):
                found[row, zlib.crc32(word.encode()) % self.width] += 1
        found += 1e-3
        return found / np.linalg.norm(found, axis=1, keepdims=True)

"""An embedder that embeds a text once, so that several evaluators cost one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["Remembered"]


class Remembered:
    """Stands for an embedder over texts; what it has embedded in a role is kept in memory."""

    def __init__(self, model: Embedder) -> None:
        self.model = model
        self.held: dict[tuple[str, str], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """``(n, d)`` float32 of texts in the role of queries."""
        return self._encode("query", list(inputs))

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """``(n, d)`` float32 of texts in the role of documents."""
        return self._encode("document", list(inputs))

    def _encode(self, role: Any, texts: list[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self.held]
        for text, vector in zip(new, self.model.encode(new, role=role), strict=True):
            self.held[role, text] = vector
        return np.stack([self.held[role, text] for text in texts])

"""LlamaIndex: ``MmembedEmbedding`` is a ``MultiModalEmbedding`` for texts and images."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING, Any

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.embeddings import MultiModalEmbedding
except ImportError as error:
    from mmembed.errors import MissingDependencyError

    raise MissingDependencyError("LlamaIndex embeddings", "llama-index") from error

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["MmembedEmbedding"]


class MmembedEmbedding(MultiModalEmbedding):  # type: ignore[misc, unused-ignore]
    """Dense embeddings of texts and images in one space.

    Args:
        model: what ``Embedder.from_pretrained`` loads, or an ``Embedder``.
        options: for LlamaIndex, such as ``embed_batch_size``.
    """

    _model: Any = PrivateAttr()

    def __init__(self, model: str | Embedder = "mini", **options: Any) -> None:
        from mmembed.embedder import Embedder

        loaded = Embedder.from_pretrained(model) if isinstance(model, str) else model
        super().__init__(model_name=loaded.name, **options)
        self._model = loaded

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex records the class as."""
        return "MmembedEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(map(float, self._model.encode_query(query)))

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(map(float, self._model.encode_document(text)))

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = self._model.encode_document(texts).tolist()
        return found

    def _get_image_embedding(self, img_file_path: str | BytesIO) -> list[float]:
        held = img_file_path
        source = held.getvalue() if isinstance(held, BytesIO) else str(held)
        return list(map(float, self._model.encode_document({"image": source})))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_image_embedding(self, img_file_path: str | BytesIO) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

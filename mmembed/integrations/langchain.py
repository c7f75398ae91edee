"""LangChain: ``MmembedEmbeddings`` is an ``Embeddings`` for any vector store of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    from mmembed.errors import MissingDependencyError

    raise MissingDependencyError("LangChain embeddings", "langchain") from error

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["MmembedEmbeddings"]


class MmembedEmbeddings(Embeddings):
    """Dense embeddings of texts, and of images into the same space.

    >>> from mmembed.integrations.langchain import MmembedEmbeddings
    >>> embeddings = MmembedEmbeddings("mini")                              # doctest: +SKIP
    >>> InMemoryVectorStore(embeddings).add_texts(["two dogs"])             # doctest: +SKIP

    Args:
        model: what ``Embedder.from_pretrained`` loads, or an ``Embedder``.
        dim: keep so many dimensions, normalised again (Matryoshka).
        options: for ``Embedder.from_pretrained``.
    """

    def __init__(
        self, model: str | Embedder = "mini", *, dim: int | None = None, **options: Any
    ) -> None:
        from mmembed.embedder import Embedder

        self.model = Embedder.from_pretrained(model, **options) if isinstance(model, str) else model
        self.dim = dim

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector a text, with the model's prompt for documents."""
        found: list[list[float]] = self.model.encode_document(texts, dim=self.dim).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text, with the model's prompt for queries."""
        found: list[float] = self.model.encode_query(text, dim=self.dim).tolist()
        return found

    def embed_image(self, uris: Sequence[str | Path]) -> list[list[float]]:
        """A vector an image file, as the stores of LangChain that take images ask for.

        Raises:
            InputError: an image cannot be read; ``position`` says which.
        """
        items = [{"image": str(uri)} for uri in uris]
        found: list[list[float]] = self.model.encode_document(items, dim=self.dim).tolist()
        return found

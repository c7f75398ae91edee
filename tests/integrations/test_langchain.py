"""LangChain: our class in a store of theirs, and their own tests; `make test-full` runs these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from some_texts import TEXTS

from mmembed import Embedder

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from mmembed.integrations.langchain import MmembedEmbeddings


def test_langchain(mini: Embedder, photo: Path) -> None:
    embeddings = MmembedEmbeddings(mini)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), mini.encode_document(TEXTS))
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), mini.encode_query(TEXTS[0]))
    np.testing.assert_allclose(
        embeddings.embed_image([photo]), mini.encode_document([photo]), atol=1e-6
    )
    assert len(MmembedEmbeddings(mini, dim=16).embed_query("x")) == 16
    store = InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS)
    assert store.similarity_search("a bike", k=1)[0].page_content == TEXTS[1]


class TestUnits(EmbeddingsUnitTests):
    """LangChain's tests need no more than the name of the class."""

    @property
    def embeddings_class(self) -> type[MmembedEmbeddings]:
        return MmembedEmbeddings


# Half of them are coroutines, and pytest-asyncio tells the others that they are none.
@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:The test .* is marked with '@pytest.mark.asyncio'")
class TestWithTheModel(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[MmembedEmbeddings]:
        return MmembedEmbeddings

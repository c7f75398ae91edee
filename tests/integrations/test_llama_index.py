"""LlamaIndex: our class gives the same vectors; `make test-full` runs this."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from some_texts import TEXTS

from mmembed import Embedder

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")
from mmembed.integrations.llama_index import MmembedEmbedding


def test_llama_index(mini: Embedder, photo: Path) -> None:
    embedding = MmembedEmbedding(mini, embed_batch_size=2)
    np.testing.assert_allclose(
        embedding.get_text_embedding_batch(TEXTS), mini.encode_document(TEXTS), atol=1e-6
    )
    np.testing.assert_allclose(
        embedding.get_query_embedding(TEXTS[0]), mini.encode_query(TEXTS[0]), atol=1e-6
    )
    wanted = mini.encode_document(photo)
    for source in (str(photo), BytesIO(photo.read_bytes())):
        np.testing.assert_allclose(embedding.get_image_embedding(source), wanted, atol=1e-6)
    found = asyncio.run(embedding.aget_text_embedding(TEXTS[1]))
    np.testing.assert_allclose(found, mini.encode_document(TEXTS[1]), atol=1e-6)

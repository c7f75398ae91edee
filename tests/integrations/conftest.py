"""One model of real weights for all of them."""

from __future__ import annotations

import pytest

from mmembed import Embedder


@pytest.fixture(scope="session")
def mini() -> Embedder:
    return Embedder.from_pretrained("mini", device="cpu")

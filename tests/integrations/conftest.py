"""One model of real weights for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from mmembed import Embedder

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def mini() -> Embedder:
    return Embedder.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path

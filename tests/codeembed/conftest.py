"""Fixtures of the code tests; ``word_model`` becomes importable, worker processes use it too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from word_model import WordModel


@pytest.fixture
def model() -> WordModel:
    """A model of hashed words that reads 64 of them."""
    return WordModel()


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """``tree({"a/b.py": "..."})``: those files in a new folder."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "repo"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write

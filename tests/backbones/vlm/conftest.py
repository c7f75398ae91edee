"""Tiny checkpoints, made once a run, and the inputs that every family reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.inputs.decoded import DecodedItem, Frames, Page

sys.path.insert(0, str(Path(__file__).parent))
from tiny_vlm import TINY


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def clip(frames: int, height: int, width: int, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    indices = np.arange(frames) * 5
    return Frames(pixels, indices, indices / 10.0, 10.0, frames * 5)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, Path] = {}

    class Lazy(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            made[name] = self[name] = TINY[name](tmp_path_factory.mktemp(name))
            return made[name]

    return Lazy()


@pytest.fixture(scope="session")
def loaded(checkpoints: dict[str, Path]) -> dict[str, VisionLanguage]:
    class Lazy(dict[str, VisionLanguage]):
        def __missing__(self, name: str) -> VisionLanguage:
            self[name] = load_vision_language(checkpoints[name])
            return self[name]

    return Lazy()


@pytest.fixture(params=sorted(TINY))
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def backbone(loaded: dict[str, VisionLanguage], family: str) -> VisionLanguage:
    return loaded[family]


@pytest.fixture(scope="session")
def items() -> list[DecodedItem]:
    """Every kind of input: words, an image, several, a clip, a page, and mixtures."""
    return [
        DecodedItem(("two dogs in the snow",), instruction="Find it"),
        DecodedItem((picture(60, 90, 1),)),
        DecodedItem((picture(60, 40, 2), "a red bicycle"), role="query"),
        DecodedItem(("before", picture(40, 40, 3), "after", picture(90, 50, 4))),
        DecodedItem((clip(4, 48, 64, 5),)),
        DecodedItem((clip(2, 40, 40, 6), "a dance", picture(50, 50, 7))),
        DecodedItem((Page(picture(100, 70, 8), "words of the page", 3),)),
        DecodedItem(("",)),
    ]

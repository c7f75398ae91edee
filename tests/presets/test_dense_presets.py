"""Dense presets over Qwen models give the vectors of the published recipes."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmembed import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from published import copy_of, last, picture, qwen_states

IMAGE = picture(60, 90, 1)
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
HELP = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"


@dataclass(frozen=True)
class Recipe:
    """One input of a published checkpoint, and the prompt that its own code makes of it."""

    folder: str
    family: str
    given: Any
    prompt: str
    pixels: tuple[int, int]
    flat: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> list[Image.Image]:
        return [IMAGE] if "<|image_pad|>" in self.prompt else []


def gme(given: Any, prompt: str, **options: Any) -> Recipe:
    return Recipe(
        "gme-Qwen2-VL-2B-Instruct", "qwen2_vl", given, prompt, (3136, 1003520), True, options
    )


def vlm2vec(given: Any, prompt: str, folder: str = "VLM2Vec-V2.0", **options: Any) -> Recipe:
    least = 200704 if "UniME" in folder else 3136
    return Recipe(folder, "qwen2_vl", given, prompt, (least, 1003520), True, options)


def unite(given: Any, prompt: str) -> Recipe:
    return Recipe("Unite-Base-Qwen2-VL-2B", "qwen2_vl", given, prompt, (200704, 1003520), True)


def qwen3(given: Any, prompt: str, **options: Any) -> Recipe:
    return Recipe(
        "Qwen3-VL-Embedding-2B", "qwen3_vl", given, prompt, (4096, 1843200), False, options
    )


def system(instruction: str) -> str:
    return f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n"


FUSED = {"text": "a red one", "image": IMAGE}
RECIPES = {
    "gme-text": gme("two dogs", f"{HELP}two dogs{ANSWER}"),
    "gme-image": gme(IMAGE, f"{HELP}{VISION}{ANSWER}", role="document"),
    "gme-fused": gme(FUSED, f"{HELP}{VISION}a red one{ANSWER}"),
    "gme-query": gme(
        "dogs",
        f"{system('Find an image that matches the given text.')}dogs{ANSWER}",
        instruction="Find an image that matches the given text",
        role="query",
    ),
    "vlm2vec_v2-text": vlm2vec("A cat and a dog", "A cat and a dog"),
    "vlm2vec_v2-image": vlm2vec(IMAGE, "<|image_pad|> Represent the given image."),
    "vlm2vec_v2-question": vlm2vec(
        FUSED,
        "<|image_pad|> Represent the given image with the following question: a red one",
        instruction="Represent the given image with the following question:",
    ),
    "vlm2vec-image": vlm2vec(
        IMAGE,
        "<|image_pad|> Find a caption.",
        "VLM2Vec-Qwen2VL-2B",
        instruction="Find a caption.",
    ),
    "b3-text": vlm2vec("dogs", "Find an image: dogs", "B3_Qwen2_2B", instruction="Find an image:"),
    "unime_v2-image": vlm2vec(
        IMAGE,
        "<|image_pad|> Find an image caption describing the given image.",
        "UniME-V2-Qwen2VL-2B",
        instruction="Find an image caption describing the given image.",
    ),
    "unite-text": unite("dogs", f"{HELP}dogs\nSummary above sentence in one word:{ANSWER}"),
    "unite-image": unite(IMAGE, f"{HELP}{VISION}\nSummary above image in one word:{ANSWER}"),
    "unite-fused": unite(
        FUSED, f"{HELP}{VISION}a red one\nSummary above sentence and image in one word:{ANSWER}"
    ),
    "qwen3-text": qwen3("dogs", system("Represent the user's input.") + "dogs" + ANSWER),
    "qwen3-fused": qwen3(
        FUSED, f"{system('Find it.')}{VISION}a red one{ANSWER}", instruction="Find it"
    ),
    "qwen3-empty": qwen3("", f"{system('Find it!')}NULL{ANSWER}", instruction="Find it!"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    cache = tmp_path_factory.mktemp("published")

    class Lazy(dict[str, Path]):
        def __missing__(self, key: str) -> Path:
            name, family = key.split(":")
            self[key] = copy_of(family, cache / "named" / name, cache)
            return self[key]

    return Lazy()


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_vectors_are_those_of_the_published_recipe(name: str, folders: dict[str, Path]) -> None:
    recipe = RECIPES[name]
    folder = folders[f"{recipe.folder}:{recipe.family}"]
    states = qwen_states(
        folder, recipe.prompt, recipe.images, pixels=recipe.pixels, flat=recipe.flat
    )
    model = Embedder.from_pretrained(folder)
    vector = model.encode(recipe.given, **recipe.options)
    np.testing.assert_allclose(vector, last(states).numpy(), atol=1e-5)


@pytest.mark.parity
def test_positions_matter_to_the_vectors(folders: dict[str, Path]) -> None:
    """Otherwise the recipes above would also pass with the wrong ones."""
    recipe = RECIPES["gme-fused"]
    folder = folders[f"{recipe.folder}:{recipe.family}"]
    flat, deep = (
        last(qwen_states(folder, recipe.prompt, recipe.images, pixels=recipe.pixels, flat=flat))
        for flat in (True, False)
    )
    assert (flat - deep).abs().max() > 1e-3


def test_a_saved_model_keeps_the_conventions_under_any_name(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = RECIPES["gme-fused"]
    model = Embedder.from_pretrained(folders[f"{recipe.folder}:{recipe.family}"])
    model.save_pretrained(tmp_path / "mine")
    again = Embedder.from_pretrained(tmp_path / "mine")
    assert again.config == model.config
    np.testing.assert_allclose(again.encode(FUSED), model.encode(FUSED), atol=1e-6)


def test_a_preset_can_be_named_or_turned_off(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = RECIPES["gme-fused"]
    known = folders[f"{recipe.folder}:{recipe.family}"]
    plain = tmp_path / "copy"
    plain.mkdir()
    for file in known.iterdir():
        (plain / file.name).symlink_to(file)
    by_name = Embedder.from_pretrained(plain, preset="gme").encode(FUSED)
    np.testing.assert_allclose(by_name, Embedder.from_pretrained(known).encode(FUSED), atol=1e-6)
    assert Embedder.from_pretrained(known).name == str(known.resolve())
    off = Embedder.from_pretrained(known, preset="none")
    assert not off.backbone.settings.flat_positions  # type: ignore[attr-defined]
    assert off.config.pooling == "mean"


@pytest.mark.parametrize("name", ["unite_qwen2_vl"])
def test_a_checkpoint_may_have_a_name_of_its_own_for_its_family(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    known = folders["Unite-Base-Qwen2-VL-2B:qwen2_vl"]
    folder = Path(shutil.copytree(known, tmp_path / "Unite-Instruct-Qwen2-VL-2B"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": name}))
    expected = Embedder.from_pretrained(known).encode(FUSED)
    model = Embedder.from_pretrained(folder)
    np.testing.assert_allclose(model.encode(FUSED), expected, atol=1e-6)
    model.save_pretrained(tmp_path / "mine")
    again = Embedder.from_pretrained(tmp_path / "mine")
    np.testing.assert_allclose(again.encode(FUSED), expected, atol=1e-6)

"""Embeddings kept on disk by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmembed import Embedder
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.errors import InputError
from mmembed.vector_cache import VectorCache


@pytest.fixture
def model(tmp_path: Path) -> Embedder:
    from mmembed.backbones import load_backbone
    from mmembed.embedder import EmbedderConfig

    backbone = load_backbone(tiny_vlm("qwen2_vl", tmp_path / "model"))
    made = Embedder(backbone, EmbedderConfig(pooling="last", multi_dim=8, lexical=True))
    made.cache = VectorCache(tmp_path / "cache" / "vectors.db")
    return made


def picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def forwards(model: Embedder) -> list[int]:
    """Rows of each forward from now on."""
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda _, batch: seen.append(len(batch[0])))  # type: ignore[attr-defined]
    return seen


def test_nothing_is_encoded_twice(model: Embedder, tmp_path: Path) -> None:
    inputs = ["a", picture(tmp_path / "a.png", 1), {"text": "b", "image": str(tmp_path / "a.png")}]
    first = model.encode(inputs, output=("dense", "multi", "sparse"))
    seen = forwards(model)
    again = model.encode([*inputs[::-1], "new"], output=("dense", "multi", "sparse"))
    assert sum(seen) == 1
    np.testing.assert_array_equal(again.dense[:3], first.dense[::-1])
    for one, other in zip(again.multi[:3], first.multi[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        again.sparse.to_dense()[:3].numpy(), first.sparse.to_dense().numpy()[::-1]
    )


def test_the_places_of_patches_are_kept(model: Embedder, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.png", 1)
    first, again = (next(model.encode_stream([photo], output=("multi",))) for _ in range(2))
    assert first.multi is not None
    assert first.boxes is not None
    assert len(first.boxes) == len(first.multi)
    np.testing.assert_array_equal(again.boxes, first.boxes)


def test_equals_what_is_made_without_it(model: Embedder, tmp_path: Path) -> None:
    inputs = ["a", "a", picture(tmp_path / "a.png", 1), "b"] * 3
    kept = [model.encode(inputs) for _ in range(2)]
    model.cache = None
    plain = model.encode(inputs)
    for one in kept:
        np.testing.assert_allclose(one, plain, atol=2e-6)


def test_what_a_vector_depends_on_is_part_of_its_key(model: Embedder, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    seen = forwards(model)
    for options in (
        {},
        {"role": "query"},
        {"instruction": "find it"},
        {"output": "multi"},
    ):
        model.encode([path], **options)
    assert sum(seen) == 4
    picture(path, 2)  # another picture under the same name
    model.encode([path])
    assert sum(seen) == 5
    model.adapters.add("own", rank=2)
    model.encode([path], task="own")
    model.adapters.remove("own")
    model.adapters.add("own", rank=2)
    model.encode([path], task="own")
    assert sum(seen) == 7


def test_errors_are_told_at_their_place_and_never_kept(model: Embedder, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    for _ in range(2):
        with pytest.raises(InputError, match=r"missing\.png") as caught:
            model.encode(["a", "b", missing])
        assert caught.value.position == 2
    picture(missing, 1)
    assert model.encode(["a", "b", missing]).shape == (3, model.dim)


def test_a_stream_of_any_length_is_read_in_part(model: Embedder) -> None:
    taken = 0

    def texts() -> object:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield f"text {i}"

    stream = model.encode_stream(texts())  # type: ignore[arg-type]
    next(stream)
    assert taken < 1000


def test_two_caches_share_a_file(model: Embedder) -> None:
    assert model.cache is not None
    model.encode(["a", "b"])
    other = VectorCache(model.cache.file)
    assert len(other) == 2

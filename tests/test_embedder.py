"""The embedder's promises, on the text half of the packaged model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed import Embedder
from mmembed.embedder import truncate
from mmembed.encoding import token_budget_batches
from mmembed.errors import ConfigError, InputError

TEXTS = [f"a sentence about {word} " * (1 + i % 7) for i, word in enumerate("abcdefghijkl")]


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.from_pretrained("mini")


def test_shapes_and_types(model: Embedder) -> None:
    assert model.encode([]).shape == (0, 384)
    one = model.encode("a single text")
    assert one.shape == (384,)
    assert one.dtype == np.float32
    many = model.encode(TEXTS, convert_to="torch")
    assert isinstance(many, torch.Tensor)
    assert many.shape == (12, 384)
    assert many.dtype == torch.float32
    np.testing.assert_allclose(model.encode(t for t in TEXTS), many.numpy(), atol=1e-6)


def test_order_and_neighbours_do_not_matter(model: Embedder) -> None:
    together = model.encode(TEXTS)
    np.testing.assert_allclose(together[::-1], model.encode(TEXTS[::-1]), atol=1e-6)
    alone = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_truncated_vectors_are_unit_prefixes(model: Embedder) -> None:
    full, cut = model.encode(TEXTS), model.encode(TEXTS, dim=64)
    assert cut.shape == (12, 64)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(cut, truncate(full, 64), atol=1e-6)
    for dim in (0, 385):
        with pytest.raises(ConfigError, match=f"dim={dim}.*384"):
            model.encode("x", dim=dim)


def test_similarity_is_cosine(model: Embedder) -> None:
    a, b = model.encode(TEXTS[:2]) * 3, model.encode(TEXTS)
    scores = model.similarity(a, b)
    assert scores.shape == (2, 12)
    assert scores[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert isinstance(model.similarity(torch.from_numpy(a), b), torch.Tensor)


def test_bad_items_raise_by_position_or_leave_nan(model: Embedder, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff broken")
    inputs = ["fine", broken, "fine too", tmp_path / "missing.jpg"]
    with pytest.raises(InputError, match=r"item 1: .*broken\.jpg"):
        model.encode(inputs)
    vectors = model.encode(inputs, on_error="none")
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False, True]
    np.testing.assert_allclose(vectors[2], model.encode("fine too"), atol=1e-6)


def test_streams_are_read_a_bounded_number_ahead(model: Embedder) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "again"

    stream = model.encode_stream(endless())
    assert [next(stream).position for _ in range(3)] == [0, 1, 2]
    stream.close()  # type: ignore[attr-defined]
    assert taken < 10_000


def test_threads_may_share_a_model(model: Embedder) -> None:
    expected = model.encode(TEXTS)
    found: list[np.ndarray] = []  # type: ignore[type-arg]
    threads = [threading.Thread(target=lambda: found.append(model.encode(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_moved_folder_holds_the_same_model(model: Embedder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a" / "model")
    first = Embedder.from_pretrained(tmp_path / "a" / "model")
    (tmp_path / "a").rename(tmp_path / "b")
    second = Embedder.from_pretrained(tmp_path / "b" / "model")
    assert first.fingerprint == second.fingerprint
    assert first.name != second.name
    np.testing.assert_allclose(second.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_batches_keep_to_their_budget() -> None:
    costs = [5, 100, 1, 7, 30, 30, 2]
    batches = list(token_budget_batches(costs, 40))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    for batch in batches:
        assert sum(costs[i] for i in batch) <= 40 or len(batch) == 1
    assert batches[0] == [1]
    assert list(token_budget_batches([], 40)) == []

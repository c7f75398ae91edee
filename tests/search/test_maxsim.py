"""Exact MaxSim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmembed.errors import InputError
from mmembed.search import maxsim as module
from mmembed.search.maxsim import maxsim, unpad


def ragged(seed: int, lengths: list[int], width: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, width)).astype(np.float32) for length in lengths]


def by_definition(query: np.ndarray, document: np.ndarray) -> float:
    return sum(max(float(q @ d) for d in document) for q in query)


def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = ragged(0, [3, 1, 5]), ragged(1, [4, 1, 9, 2])
    expected = [[by_definition(q, d) for d in documents] for q in queries]
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=1e-5)
    monkeypatch.setattr(module, "_BLOCK", 25)  # several blocks, one of them over the budget
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=1e-5)


def test_padding_never_wins() -> None:
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    padded = np.array([[[-1.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    documents = unpad(padded, np.array([[1, 0]]))
    assert maxsim([query], documents).item() == -1.0


def test_tensors_of_low_precision_are_scored_in_float32() -> None:
    queries, documents = ragged(2, [3, 2]), ragged(3, [4, 6])
    as_tensors = [torch.from_numpy(each).bfloat16() for each in documents]
    rounded = [each.float().numpy() for each in as_tensors]
    scores = maxsim([torch.from_numpy(each) for each in queries], as_tensors)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, maxsim(queries, rounded))


def test_empty_sides_give_an_empty_matrix() -> None:
    assert maxsim(ragged(0, [2]), []).shape == (1, 0)
    assert maxsim([], ragged(0, [2])).shape == (0, 1)


def test_an_entry_without_tokens_is_named() -> None:
    with pytest.raises(InputError, match="document 1"):
        maxsim(ragged(0, [2]), [*ragged(1, [3]), np.zeros((0, 8), np.float32)])


def test_widths_must_agree() -> None:
    with pytest.raises(InputError, match="widths"):
        maxsim(ragged(0, [2], 8), ragged(1, [3], 4))

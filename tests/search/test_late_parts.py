"""What late interaction is made of: pooling, codecs, fixed dimensional encodings."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.errors import ConfigError, InputError
from mmembed.search.fde import FixedEncoding
from mmembed.search.late import LateInteraction, TokenStorage
from mmembed.search.maxsim import maxsim
from mmembed.search.token_codec import (
    CODECS,
    BinaryInt8,
    codec_named,
    read_tokens,
    token_offsets,
)
from mmembed.search.token_pooling import pool_tokens, ward_clusters


def unit(n: int, width: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@pytest.mark.parametrize("count", [2, 3, 17, 60])
def test_clusters_are_those_of_scipy(count: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points = unit(count, seed=count)
    tree = hierarchy.linkage(points.astype(np.float64), method="ward")
    for clusters in {1, 2, max(1, count // 3), count - 1, count}:
        theirs = hierarchy.fcluster(tree, clusters, criterion="maxclust")
        assert partition(ward_clusters(points, clusters)) == partition(theirs), clusters


def test_equal_tokens_become_one_and_ties_end() -> None:
    tokens = np.repeat(unit(3), 5, axis=0)
    pooled = pool_tokens(tokens, 5)
    np.testing.assert_allclose(pooled, unit(3), atol=1e-6)
    assert len(pool_tokens(np.ones((7, 4), np.float32) / 2, 3)) == 3


@pytest.mark.parametrize(("factor", "left"), [(1, 10), (1.5, 7), (3, 4), (100, 1)])
def test_pooling_leaves_unit_vectors_of_the_number_asked_for(factor: float, left: int) -> None:
    pooled = pool_tokens(unit(10), factor)
    assert pooled.shape == (left, 16)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"0\.5"):
        pool_tokens(unit(2), 0.5)


@pytest.mark.parametrize(
    ("name", "error"), [("float16", 1e-3), ("int8", 4e-3), ("binary", 0.7), ("binary+int8", 4e-3)]
)
def test_codecs_return_what_they_were_given(name: str, error: float) -> None:
    codec = codec_named(name)
    documents = [unit(n, 20, seed=n) for n in (1, 5, 3)]
    payloads = [codec.encode(each) for each in documents]
    assert [len(each) for each in payloads] == [n * codec.size(20) for n in (1, 5, 3)]
    tokens, offsets = read_tokens(codec, payloads, 20)
    assert offsets.tolist() == [0, 1, 6]
    assert tokens.dtype == np.float32
    assert np.abs(tokens - np.concatenate(documents)).max() < error
    if name == "binary":
        np.testing.assert_array_equal(tokens > 0, np.concatenate(documents) > 0)
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-5)


def test_a_token_of_zeros_survives_int8() -> None:
    codec = CODECS["int8"]
    tokens = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(codec.decode(codec.encode(tokens), 4), tokens)


def test_bytes_that_are_no_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="document 1"):
        read_tokens(CODECS["int8"], [bytes(18), bytes(7)], 16)
    with pytest.raises(InputError, match="document 0"):
        read_tokens(CODECS["int8"], [b""], 16)
    with pytest.raises(ConfigError, match="float16, int8, binary"):
        codec_named("int4")


def test_an_encoding_is_the_definition() -> None:
    """One region: the dot product is that of the sum of the query and the mean of the document."""
    whole = FixedEncoding(16, planes=0, cuts=400, projected=16)
    query, document = unit(3, seed=1), unit(5, seed=2)
    found = whole.query(query) @ whole.document(document) / whole.cuts
    assert found == pytest.approx(float(query.sum(0) @ document.mean(0)), abs=0.03)


def test_an_empty_region_takes_the_nearest_token() -> None:
    encoding = FixedEncoding(16, planes=3, cuts=2, projected=4)
    token = unit(1)
    blocks = encoding.document(token).reshape(2, 8, 4)
    # One token is nearest to every region.
    np.testing.assert_allclose(blocks, np.repeat(blocks[:, :1], 8, axis=1), atol=1e-6)
    assert (encoding.query(token).reshape(2, 8, 4) != 0).any(axis=2).sum() == 2
    assert encoding.dim == 64


def test_encodings_rank_like_maxsim() -> None:
    rng = np.random.default_rng(0)
    documents = [unit(12, seed=n) for n in range(60)]
    queries = []
    for n in range(20):
        near = documents[n][:6] + 0.2 * rng.standard_normal((6, 16)).astype(np.float32)
        queries.append(near / np.linalg.norm(near, axis=1, keepdims=True))
    encoding = FixedEncoding(16, planes=3, cuts=40, projected=8)
    kept = np.stack([encoding.document(each) for each in documents])
    asked = np.stack([encoding.query(each) for each in queries])
    best = maxsim(queries, documents).argmax(axis=1)
    ranks = [
        int((row > row[wanted]).sum()) for row, wanted in zip(asked @ kept.T, best, strict=True)
    ]
    assert np.mean([rank < 5 for rank in ranks]) > 0.9
    again = FixedEncoding(16, planes=3, cuts=40, projected=8)
    np.testing.assert_array_equal(again.query(queries[0]), asked[0])


@pytest.mark.parametrize("width", [16, 64, 100])
def test_bits_count_signs_and_bytes_decide(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [unit(5 + n % 4, width, seed=n) for n in range(120)]
    query = unit(4, width, seed=999)
    storage = TokenStorage(LateInteraction(codec="binary+int8"), width)
    payloads = [storage.codec.encode(each) for each in documents]
    codec = CODECS["binary+int8"]
    assert isinstance(codec, BinaryInt8)
    offsets = token_offsets(codec, payloads, width)
    signs = [np.where(each > 0, 1, -1) for each in documents]
    wanted = [(np.where(query > 0, 1, -1) @ each.T).max(axis=1).sum() for each in signs]
    found = codec.coarse(query, b"".join(payloads), width, offsets)
    np.testing.assert_array_equal(found, wanted)
    with monkeypatch.context() as patched:  # as numpy 1 counts
        patched.delattr(np, "bitwise_count", raising=False)
        np.testing.assert_array_equal(
            codec.coarse(query, b"".join(payloads), width, offsets), wanted
        )
    exact = maxsim([query], documents)[0]
    scores = storage.scores(query, payloads)
    kept = np.isfinite(scores)
    assert kept.sum() == 100
    assert set(np.flatnonzero(kept)) >= set(np.argsort(-np.array(wanted), kind="stable")[:90])
    np.testing.assert_allclose(scores[kept], exact[kept], atol=0.05)
    best = storage.best(query, [(str(i), each) for i, each in enumerate(payloads)], 120)
    assert len(best) == 100

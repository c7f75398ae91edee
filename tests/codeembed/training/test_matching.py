"""The matching head against its formula, its rows, its files and what it reranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeembed.training.matching import Matcher, PairedExamples, attended_pair, reranked
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model

PAIRS = [("adds two", "def f(a, b): return a + b"), ("reads", "open(path).read()")]


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    encoder = TextEncoder.from_pretrained(tiny_model("bert", tmp_path_factory.mktemp("m") / "bert"))
    torch.manual_seed(0)
    return Matcher(encoder, layers=1).eval()


def attended(
    attention: torch.nn.MultiheadAttention, asked: Tensor, seen: Tensor, *, causal: bool
) -> Tensor:
    """Multi-head attention of one row, written out."""
    weights = attention.in_proj_weight.chunk(3)
    biases = attention.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b).view(len(x), 4, -1).transpose(0, 1)
        for x, w, b in zip((asked, seen, seen), weights, biases, strict=True)
    )
    scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    mixed = (scores.softmax(dim=2) @ v).transpose(0, 1).reshape(len(asked), -1)
    return F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)


def by_hand(matcher: Matcher, text: str, code: str) -> float:
    encoder = matcher.text
    memory = encoder.read(encoder.collate(encoder.tokenize([text]))).hidden
    ids = torch.tensor(encoder.tokenize([code])[0].input_ids)
    x = torch.cat([matcher.first[None], encoder.base.get_input_embeddings()(ids)])
    (layer,) = matcher.decoder.layers
    y = layer.norm1(x)
    x = x + attended(layer.self_attn, y, y, causal=True)
    x = x + attended(layer.multihead_attn, layer.norm2(x), memory, causal=False)
    x = x + layer.linear2(layer.linear1(layer.norm3(x)).relu())
    return float(matcher.judge(matcher.decoder.norm(x)[-1]))


@torch.no_grad()
def test_logits_are_the_formula_whatever_stands_beside_them(matcher: Matcher) -> None:
    found = matcher.logits(PAIRS)
    for pair, logit in zip(PAIRS, found, strict=True):
        assert logit == pytest.approx(by_hand(matcher, *pair), abs=1e-5)
        assert matcher.logits([pair])[0] == pytest.approx(logit, abs=1e-5)
    assert matcher.logits([("other words", PAIRS[0][1])])[0] != pytest.approx(found[0], abs=1e-4)


def test_it_is_saved_whole(matcher: Matcher, tmp_path: Path) -> None:
    matcher.save_pretrained(tmp_path / "head")
    again = Matcher.from_pretrained(tmp_path / "head")
    assert again.logits(PAIRS) == pytest.approx(matcher.logits(PAIRS), abs=1e-6)
    (tmp_path / "head" / "matching.json").unlink()
    with pytest.raises(ModelLoadError, match="no matching head"):
        Matcher.from_pretrained(tmp_path / "head")


class _Given:
    def __init__(self, batch: ExampleBatch) -> None:
        self.given = batch

    def __len__(self) -> int:
        return 2

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        return self.given


def test_a_query_is_paired_with_its_positive_and_its_own_negatives() -> None:
    def rows(*ids: int) -> list[Row]:
        return [Row([i], 1) for i in ids]

    given = ExampleBatch(rows(1, 2), rows(11, 12), rows(21, 22, 23, 24), 2)
    made = PairedExamples(_Given(given), attended_pair).batch([0, 1], (0, 0, 0))
    assert [(int(r.extras["text"]), r.input_ids) for r in made.query] == [(1, [11]), (2, [12])]
    asked = [(int(r.extras["text"]), r.input_ids[0]) for r in made.negative]
    assert asked == [(1, 21), (1, 22), (2, 23), (2, 24)]
    assert made.positive is None
    assert made.query[0].tokens == 2
    with pytest.raises(ConfigError, match="single texts"):
        PairedExamples(_Given(ExampleBatch(rows(1))), attended_pair).batch([0], (0, 0, 0))


def test_the_best_are_reranked_by_cosine_and_match(matcher: Matcher) -> None:
    cosines = np.array([[0.9, 0.1, 0.8, 0.3], [0.0, 0.7, 0.6, -0.9]])
    queries, documents = ["adds", "reads"], ["a + b", "open(f)", "c", "d"]
    found = reranked(cosines, queries, documents, matcher, depth=2)
    assert found[0, 1] < found[0, 3] < min(found[0, 0], found[0, 2])
    assert found[1, 3] < found[1, 0] < min(found[1, 1], found[1, 2])
    for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)):
        (match,) = matcher.logits([(queries[row], documents[column])])
        assert found[row, column] == pytest.approx(cosines[row, column] + match, abs=1e-5)

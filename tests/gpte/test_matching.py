"""The matching head: pairs, wrong partners drawn by similarity, the loss and its reading alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.matching import hard_partners, match_logits
from mmembed.gpte.task_building import task_of
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model
from mmembed.gpte.writing import WriteWork

QUERIES = ["adds two", "reads a file", "adds two", "counts"]
DOCUMENTS = ["def f(a, b): return a + b", "open(path).read()", "lambda a, b: a + b", "len(x)"]


@pytest.fixture(scope="module", params=["t5", "roberta"])
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextEncoder:
    path = tiny_model(request.param, tmp_path_factory.mktemp("match") / request.param)
    settings = TextSettings(tokens=("[Match]",), match_token="[Match]")
    torch.manual_seed(0)
    return TextEncoder.from_pretrained(path, settings, lm_head=True).eval()


def by_hand(encoder: TextEncoder, query: str, document: str) -> float:
    read, judged = (encoder.tokenize([text])[0].input_ids for text in (query, document))
    judged = [encoder.tokenizer.get_vocab()["[Match]"], *judged]
    if encoder.decoder is None:
        length = len(read) + len(judged)
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        seen[:, : len(read)] = True
        found = encoder.base(
            input_ids=torch.tensor([read + judged]), attention_mask=seen[None, None]
        ).last_hidden_state
    else:
        found = encoder.full(
            input_ids=torch.tensor([read]),
            decoder_input_ids=torch.tensor([judged]),
            output_hidden_states=True,
        ).decoder_hidden_states[-1]
    assert encoder.match is not None
    return float(encoder.match(found[0, -1]))


@torch.no_grad()
def test_logits_are_the_formula_whatever_stands_beside_them(encoder: TextEncoder) -> None:
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    found = match_logits(encoder, pairs)
    for pair, logit in zip(pairs, found, strict=True):
        assert logit == pytest.approx(by_hand(encoder, *pair), abs=1e-4)
        assert match_logits(encoder, [pair])[0] == pytest.approx(logit, abs=1e-4)
    assert match_logits(encoder, [("other", DOCUMENTS[0])])[0] != pytest.approx(found[0], abs=1e-6)


def test_pairs_are_judged_beside_wrong_ones(encoder: TextEncoder) -> None:
    task = task_of(TokenTaskConfig("match"), encoder)
    columns = {
        "query": [encoder.tokenize(QUERIES[:1]), encoder.tokenize(QUERIES[1:])],
        "positive": [encoder.tokenize(DOCUMENTS[:3]), encoder.tokenize(DOCUMENTS[3:])],
    }
    works = task.prepare(encoder, columns, torch.Generator().manual_seed(0))
    told = []
    for work in works:
        assert isinstance(work, WriteWork)
        sides = [
            [
                encoder.tokenizer.decode(row, skip_special_tokens=True)
                for row in b.ids.split(b.lengths)
            ]
            for b in (work.batch, work.targets)
        ]
        told += list(zip(*sides, work.labels.tolist(), strict=True))
        assert work.factor == pytest.approx(1 / 12)
    assert len(told) == 12
    right = set(zip(QUERIES, DOCUMENTS, strict=True))
    for query, document, label in told:
        assert ((query, document) in right) == bool(label)
        if not label:  # equal queries' documents are no wrong ones
            assert (query, document) not in {
                ("adds two", DOCUMENTS[0]), ("adds two", DOCUMENTS[2])
            }  # fmt: skip
    with torch.no_grad():
        loss = sum(float(task(encoder, work, None)) for work in works)
        wanted = [
            float(
                F.binary_cross_entropy_with_logits(
                    torch.tensor(by_hand(encoder, query, document)), torch.tensor(float(label))
                )
            )
            for query, document, label in told
        ]
    assert loss == pytest.approx(sum(wanted) / 12, abs=1e-4)


def test_partners_are_drawn_by_their_likeness() -> None:
    logits = torch.tensor([[-torch.inf, 2.0, 0.0], [-torch.inf] * 3, [5.0, 5.0, -torch.inf]])
    drawn = [hard_partners(logits, torch.Generator().manual_seed(seed)) for seed in range(2000)]
    assert all(row[1] is None for row in drawn)
    first = sum(row[0] == 1 for row in drawn) / len(drawn)
    assert first == pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=0.03)
    assert {row[2] for row in drawn} == {0, 1}


def test_the_head_is_saved_with_its_encoder(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "saved")
    again = TextEncoder.from_pretrained(tmp_path / "saved")
    pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
    assert match_logits(again, pairs) == pytest.approx(match_logits(encoder, pairs), abs=1e-5)


def test_what_cannot_be_is_named(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="leave column out"):
        task_of(TokenTaskConfig("match", column="positive"), encoder)
    with pytest.raises(ConfigError, match="rows have no positive"):
        task_of(TokenTaskConfig("match"), encoder).prepare(
            encoder, {"query": [encoder.tokenize(QUERIES)]}, torch.Generator()
        )

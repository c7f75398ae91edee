"""Tokens that gather a text (GEM): what they hide, and next tokens told through them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Fast

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import model_of

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.tokens import IGNORE
from mmembed.gpte.packed import through
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.task_building import task_of
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.token_tasks import Work

TEXTS = ["the quick brown fox jumps", "no", "a sentence means what it says, no more, no less"]
COUNT = 3


def encoder_of(
    tokenizer: Fast, family: str = "Qwen3", prompt: Prompt = PROMPTS["gem"], **options: Any
) -> TextEncoder:
    model = model_of(family, "AutoModelForCausalLM", **options)
    settings = TextSettings(summary_tokens=COUNT, prompts={"default": prompt})
    return TextEncoder(model, tokenizer, settings).eval()


def test_what_is_behind_sees_what_is_ahead_through_the_gathering_tokens_alone() -> None:
    gathers = torch.tensor([[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    expected = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1],
            [1, 1, 1, 0, 1, 1],  # a gathering token sees the text, and itself of its kind
            [1, 1, 0, 1, 1, 1],
            [0, 0, 1, 1, 1, 1],  # the text behind sees none of the text ahead
            [0, 0, 1, 1, 1, 1],
        ]
    )
    assert torch.equal(through(gathers)[0].long(), expected)
    at_the_end = torch.ones(6, 6, dtype=torch.int64)
    at_the_end[4, 5] = at_the_end[5, 4] = 0
    assert torch.equal(through(gathers)[1].long(), at_the_end)


def test_summary_tokens_are_learned_and_pooled(bytes_bpe: Fast) -> None:
    before = len(bytes_bpe)
    encoder = encoder_of(bytes_bpe, vocab_size=before)
    assert len(bytes_bpe) == before
    assert encoder.base.get_input_embeddings().weight.shape[0] == before + COUNT
    batch = encoder.collate(encoder.tokenize(TEXTS))
    states = encoder.read(batch)
    expected = torch.stack([row[-COUNT:].mean(dim=0) for row in states.rows()])
    torch.testing.assert_close(encoder(batch).dense, expected)


@pytest.mark.parametrize("family", ["Qwen3", "Llama", "Mistral"])
def test_states_are_those_of_the_model_under_the_whole_mask(bytes_bpe: Fast, family: str) -> None:
    options = {"sliding_window": 6} if family == "Mistral" else {}
    encoder = encoder_of(bytes_bpe, family, **options)
    batch = halved(encoder).batch
    ours = encoder.read(batch).rows()
    gathers = encoder.gathers(batch).split(batch.lengths)
    for ids, mine, row in zip(batch.ids.split(batch.lengths), gathers, ours, strict=True):
        steps = torch.arange(len(ids))
        distance = steps[:, None] - steps
        seen = (distance >= 0) & (distance < options.get("sliding_window", len(ids)))
        seen = seen & through(mine[None])[0]
        theirs = encoder.base(input_ids=ids[None], attention_mask=seen[None, None])
        torch.testing.assert_close(row, theirs.last_hidden_state[0], rtol=0, atol=1e-5)


def halved(encoder: TextEncoder, texts: list[str] = TEXTS, share: float = 0.999999) -> Work:
    task = task_of(TokenTaskConfig(task="gem", probability=share), encoder)
    rows = encoder.tokenize(texts)
    (work,) = task.prepare(encoder, {"query": [rows]}, torch.Generator().manual_seed(0))
    return work


def test_cut_texts_are_told_but_for_the_summary(bytes_bpe: Fast) -> None:
    encoder = encoder_of(bytes_bpe)
    whole = encoder.collate(encoder.tokenize(TEXTS))
    work = halved(encoder)
    learned = set(encoder.summary_ids.tolist())
    places = []
    split = (part.split(work.batch.lengths) for part in (whole.ids, work.batch.ids, work.labels))
    for before, after, labels in zip(*split, strict=True):
        text = [token for token in before.tolist() if token not in learned]
        assert [token for token in after.tolist() if token not in learned] == text
        place = after.tolist().index(min(learned))
        assert after[place : place + COUNT].tolist() == sorted(learned)
        told = [*after[1:].tolist(), IGNORE]
        told = [IGNORE if token in learned else token for token in told]
        assert labels.tolist() == told
        places.append((place, len(text)))
    assert all(0 < place < length for place, length in places if length > 1)


def test_the_rest_is_told_through_the_summary_alone(bytes_bpe: Fast) -> None:
    """The loss of the second part reaches the first by way of the summary tokens only."""
    encoder = encoder_of(bytes_bpe)
    work = halved(encoder, TEXTS[2:])
    gathers = encoder.gathers(work.batch)
    behind = (gathers.cumsum(0) > 0) & ~gathers
    states = encoder.read(work.batch).hidden
    with torch.no_grad():
        other = work.batch.ids.clone()
        other[0] = other[1]
        work.batch.ids = other
        moved = (encoder.read(work.batch).hidden - states).abs().amax(dim=1)
    assert behind.any()
    assert (moved[behind] > 1e-6).all()  # two layers: through what gathered the first token
    encoder.base.layers = encoder.base.layers[:1]
    work.batch.ids = other
    one = encoder.read(work.batch).hidden
    work.batch.ids = halved(encoder, TEXTS[2:]).batch.ids
    moved = (encoder.read(work.batch).hidden - one).abs().amax(dim=1)
    assert torch.equal(moved[behind], torch.zeros_like(moved[behind]))  # one layer: not at all
    assert (moved[gathers] > 1e-6).all()


def test_whole_texts_are_next_tokens(bytes_bpe: Fast) -> None:
    encoder = encoder_of(bytes_bpe)
    whole = encoder.collate(encoder.tokenize(TEXTS))
    work = halved(encoder, share=1e-9)
    assert torch.equal(work.batch.ids, whole.ids)
    plain = task_of(TokenTaskConfig(task="ntp"), encoder)
    (expected,) = plain.prepare(encoder, {"query": [encoder.tokenize(TEXTS)]}, torch.Generator())
    learned = torch.isin(expected.labels, encoder.summary_ids)
    assert torch.equal(work.labels, expected.labels.masked_fill(learned, IGNORE))


def test_it_asks_for_a_summary_and_a_model_that_packs(bytes_bpe: Fast) -> None:
    encoder = encoder_of(bytes_bpe, prompt=Prompt())
    with pytest.raises(ConfigError, match=r"no \{summary\} slot"):
        halved(encoder)
    model = model_of("Bloom", n_layer=1, n_head=4)
    with pytest.raises(ConfigError, match=r"does not pack: .*no summary tokens"):
        TextEncoder(model, bytes_bpe, TextSettings(summary_tokens=2))

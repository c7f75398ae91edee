"""Writing behind a text that was read both ways: masks, spans and losses against transformers'."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.tokens import IGNORE
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.task_building import task_of
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model
from mmembed.gpte.token_tasks import content_of, dressed
from mmembed.gpte.writing import WriteWork, follow, random_spans

TEXTS = ["def add(a, b): return a + b", "x = 1", "for item in items: print(item)"]
OTHERS = ["adds two", "one", "prints every item"]
TOKENS = ["<enc>", "<dec>", "<both>", *(f"<mask{i}>" for i in range(4))]


def encoder_of(family: str, folder: Path) -> TextEncoder:
    settings = TextSettings.from_dict(
        {"prompts": {"query": {"template": "<enc>{text}"}}, "tokens": TOKENS}
    )
    path = tiny_model(family, folder / family)
    torch.manual_seed(0)
    return TextEncoder.from_pretrained(path, settings, lm_head=True).eval()


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return encoder_of("roberta", tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return encoder_of("t5", tmp_path_factory.mktemp("writing"))


def task_work(
    encoder: TextEncoder, seed: int = 0, **options: object
) -> tuple[torch.nn.Module, WriteWork]:
    config = TokenTaskConfig(sentinel="<mask{}>", **options)  # type: ignore[arg-type]
    task = task_of(config, encoder)
    columns = {
        "query": [encoder.tokenize(TEXTS[:2], "query"), encoder.tokenize(TEXTS[2:], "query")],
        "positive": [encoder.tokenize(OTHERS, "document")],
    }
    works = task.prepare(encoder, columns, torch.Generator().manual_seed(seed))
    work = works[0]
    assert isinstance(work, WriteWork)
    count = sum(int((one.labels != IGNORE).sum()) for one in works)
    assert work.factor == pytest.approx(1 / count)
    return task, work


def rows(batch: TextBatch) -> list[list[int]]:
    return [row.tolist() for row in batch.ids.split(batch.lengths)]


def reference(encoder: TextEncoder, work: WriteWork) -> torch.Tensor:
    """Row by row through transformers' own forward: a 4-D mask, or its encoder-decoder loss."""
    total = torch.zeros(())
    for source, target in zip(rows(work.batch), rows(work.targets), strict=True):
        wanted = torch.tensor(target[1:])
        if encoder.decoder is None:
            length = len(source) + len(target)
            seen = torch.ones(length, length, dtype=torch.bool).tril()
            seen[:, : len(source)] = True
            found = encoder.full(
                input_ids=torch.tensor([source + target]), attention_mask=seen[None, None]
            )
            logits = found.logits[0, len(source) : -1]
        else:
            found = encoder.full(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])
            )
            logits = found.logits[0, :-1]
        total = total + F.cross_entropy(logits, wanted, reduction="sum")
    return total * work.factor


OPTIONS = [
    {"task": "denoise", "span": 5.0},
    {"task": "denoise", "prefix": "<both>"},
    {"task": "continue"},
    {"task": "generate", "prefix": "<both><mask0>", "begin": "<mask0>"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_the_loss_is_the_models_own(
    family: str, options: dict[str, object], request: pytest.FixtureRequest
) -> None:
    encoder: TextEncoder = request.getfixturevalue(family)
    task, work = task_work(encoder, **options)
    loss = task(encoder, work, None)
    torch.testing.assert_close(loss, reference(encoder, work), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert encoder.base.get_input_embeddings().weight.grad is not None
    encoder.zero_grad()


def test_targets_do_not_see_ahead_and_sources_see_no_target(roberta: TextEncoder) -> None:
    _, work = task_work(roberta, task="generate", begin="<mask0>")
    changed = work.targets.ids.clone()
    changed[-1] = 42
    with torch.no_grad():
        one = follow(roberta, work.batch, work.targets).hidden
        other = follow(roberta, work.batch, TextBatch(changed, work.targets.lengths, {})).hidden
        again = TextBatch(work.batch.ids.clone(), work.batch.lengths, {})
        again.ids[0 : again.lengths[0]] = again.ids[0 : again.lengths[0]].flip(0)
        moved = follow(roberta, again, work.targets).hidden
    torch.testing.assert_close(one[:-1], other[:-1])
    assert not torch.allclose(one[-1], other[-1])
    first = work.targets.lengths[0]
    assert not torch.allclose(one[:first], moved[:first])
    torch.testing.assert_close(one[first:], moved[first:])


@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_cut_spans_make_the_text_again(family: str, request: pytest.FixtureRequest) -> None:
    encoder: TextEncoder = request.getfixturevalue(family)
    _, work = task_work(encoder, task="denoise", prefix="<both>", probability=0.3)
    vocabulary = encoder.tokenizer.get_vocab()
    sentinels = [vocabulary[f"<mask{i}>"] for i in range(4)]
    end = vocabulary["</s>" if family == "t5" else "[SEP]"]
    for text, source, target in zip(TEXTS, rows(work.batch), rows(work.targets), strict=False):
        assert target[-1] == end
        held = target[(0 if family == "roberta" else 1) : -1]
        starts = [i for i, token in enumerate(held) if token in sentinels]
        assert [held[i] for i in starts] == sentinels[: len(starts)]
        assert starts[0] == 0
        spans = [held[a + 1 : b] for a, b in zip(starts, [*starts[1:], len(held)], strict=True)]
        assert sum(map(len, spans)) == max(1, round(0.3 * len(text)))
        filled = [
            token
            for at in source
            for token in (spans[sentinels.index(at)] if at in sentinels else [at])
        ]
        (row,) = encoder.tokenize([text], "query")
        assert filled == dressed(encoder, row, "<both>").input_ids
        assert vocabulary["<both>"] in filled
        assert vocabulary["<enc>"] not in filled


def test_the_other_text_is_written_without_its_prompt(roberta: TextEncoder) -> None:
    _, work = task_work(roberta, task="generate", begin="<mask0>", prefix="<both>")
    for other, target in zip(OTHERS, rows(work.targets), strict=False):
        assert roberta.tokenizer.decode(target[1:-1]) == other
    _, work = task_work(roberta, task="generate", begin="<mask0>", column="positive")
    for text, target in zip(TEXTS, rows(work.targets), strict=True):
        assert roberta.tokenizer.decode(target[1:-1]) == text


def test_a_rest_begins_anywhere(roberta: TextEncoder) -> None:
    found = set()
    for seed in range(20):
        _, work = task_work(roberta, seed, task="continue")
        (row, _) = roberta.tokenize(TEXTS[:2], "query")
        source, target = rows(work.batch)[0], rows(work.targets)[0]
        first, stop = content_of(roberta, row)
        assert source[:-1] + target[:-1] == row.input_ids[:stop]
        assert first < len(source) - 1 < stop
        found.add(len(target))
    assert len(found) > 5


@pytest.mark.parametrize("tokens", [1, 2, 3, 10, 100])
def test_spans_hold_a_share_and_do_not_touch(tokens: int) -> None:
    for seed in range(20):
        spans = random_spans(tokens, 0.15, 3.0, 4, torch.Generator().manual_seed(seed))
        assert sum(b - a for a, b in spans) == (0 if tokens == 1 else max(1, round(0.15 * tokens)))
        assert len(spans) == (0 if tokens == 1 else min(4, max(1, round(0.15 * tokens / 3))))
        edges = [0, *(edge for span in spans for edge in span)]
        assert all(a < b for a, b in pairwise(edges))
        assert edges[-1] <= tokens


def test_long_pairs_fit_the_positions(roberta: TextEncoder) -> None:
    task = task_of(TokenTaskConfig("generate", begin="<mask0>"), roberta)
    columns = {
        "query": [roberta.tokenize(["q" * 300, "q" * 10])],
        "positive": [roberta.tokenize(["d" * 300, "d" * 300])],
    }
    (work,) = task.prepare(roberta, columns, torch.Generator())
    assert isinstance(work, WriteWork)
    lengths = [a + b for a, b in zip(work.batch.lengths, work.targets.lengths, strict=True)]
    assert lengths == [256, 256]
    assert work.batch.lengths[0] == work.targets.lengths[0] == 128
    assert bool(torch.isfinite(task(roberta, work, None)))


def test_next_tokens_of_an_encoder_do_not_see_themselves(roberta: TextEncoder) -> None:
    task = task_of(TokenTaskConfig("ntp", prefix="<dec>"), roberta)
    columns = {"query": [roberta.tokenize(TEXTS, "query")]}
    (work,) = task.prepare(roberta, columns, torch.Generator())
    total, count = torch.zeros(()), 0
    for ids in rows(work.batch):
        assert roberta.tokenizer.convert_ids_to_tokens(ids[:2]) == ["[CLS]", "<dec>"]
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        logits = roberta.full(input_ids=torch.tensor([ids]), attention_mask=seen[None, None]).logits
        # The mode is read, and not itself predicted.
        wanted = torch.tensor(ids[2:])
        total = total + F.cross_entropy(logits[0, 1:-1], wanted, reduction="sum")
        count += len(wanted)
    torch.testing.assert_close(task(roberta, work, None), total / count, rtol=1e-4, atol=1e-5)


def test_tokens_are_saved_along_and_stay_one(t5: TextEncoder, tmp_path: Path) -> None:
    t5.save_pretrained(tmp_path / "saved")
    again = TextEncoder.from_pretrained(tmp_path / "saved", lm_head=True)
    assert again.decoder is not None
    _, work = task_work(t5, task="continue")
    torch.testing.assert_close(reference(again, work), reference(t5, work))
    plain = TextEncoder.from_pretrained(tmp_path / "saved")
    assert plain.decoder is None
    batch = plain.collate(plain.tokenize(TEXTS, "query"))
    assert int((batch.ids == plain.tokenizer.get_vocab()["<enc>"]).sum()) == 3
    with torch.no_grad():
        torch.testing.assert_close(plain.read(batch).hidden, t5.read(batch).hidden)


def test_what_cannot_be_is_named(roberta: TextEncoder, t5: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no '<extra_id_0>'"):
        task_of(TokenTaskConfig("denoise"), roberta)
    with pytest.raises(ConfigError, match=r"begin '\[X\]' is no token"):
        task_of(TokenTaskConfig("continue", begin="[X]"), roberta)
    with pytest.raises(ConfigError, match="what its decoder writes"):
        task_of(TokenTaskConfig("ntp"), t5)
    with pytest.raises(ConfigError, match="no matching head"):
        task_of(TokenTaskConfig("match"), t5)
    with pytest.raises(ConfigError, match="needs pairs, and the rows have no positive"):
        task_of(TokenTaskConfig("generate", begin="<mask0>"), roberta).prepare(
            roberta, {"query": [roberta.tokenize(TEXTS)]}, torch.Generator()
        )
    mpnet = encoder_of("mpnet", tmp_path)
    with pytest.raises(ConfigError, match="looks ahead"):
        task_of(TokenTaskConfig("ntp"), mpnet)
    task = task_of(TokenTaskConfig("continue"), mpnet)
    (work,) = task.prepare(mpnet, {"query": [mpnet.tokenize(TEXTS)]}, torch.Generator())
    with pytest.raises(ConfigError, match="does not pack"):
        task(mpnet, work, None)

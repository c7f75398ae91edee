"""Soft augmentation of rows: which tokens, by what, and when again; and what else is masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from codeembed.training.augment import AugmentedExamples
from codeembed.training.config import AugmentConfig, CodeTaskConfig
from codeembed.training.heads import MaskedNames, head_of
from codeembed.training.objectives import IGNORE
from codeembed.training.views import noisy_text
from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.objectives.tokens import mlm_loss
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model

CODE = "def add(first, other):\n    return first + other\n"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tiny_model("bert", tmp_path_factory.mktemp("m") / "bert")
    return TextEncoder.from_pretrained(folder, lm_head=True)


class _Given:
    def __init__(self, encoder: TextEncoder) -> None:
        self.query, self.positive = encoder.tokenize(["adds two numbers"]), encoder.tokenize([CODE])

    def __len__(self) -> int:
        return 1

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        return ExampleBatch(self.query * len(rows), self.positive * len(rows))


def made(encoder: TextEncoder, draw: tuple[int, int, int], **config: Any) -> ExampleBatch:
    examples = AugmentedExamples(_Given(encoder), encoder.tokenizer, AugmentConfig(**config))
    return examples.batch(range(40), draw)


def test_rows_are_others_in_every_epoch_and_stay_beside_as_they_were(encoder: TextEncoder) -> None:
    first, again, later = (made(encoder, draw) for draw in ((1, 0, 0), (1, 0, 7), (1, 1, 0)))
    assert first.keys == again.keys
    assert first.keys["positive"] != later.keys["positive"]
    given = _Given(encoder)
    assert (first.query, first.positive) == (given.query * 40, given.positive * 40)
    assert [row.tokens for row in first.keys["positive"]] == [given.positive[0].tokens] * 40


def test_text_is_masked_and_code_masked_or_typed(encoder: TextEncoder) -> None:
    batch = made(encoder, (0, 0, 0), probability=0.3)
    mask = encoder.tokenizer.mask_token_id
    special = set(encoder.tokenizer.all_special_ids)
    first_of = {
        kind: encoder.tokenizer(kind, add_special_tokens=False)["input_ids"][0]
        for kind in ("identifier", "return")
    }
    changed: dict[str, list[tuple[int, int, int]]] = {}
    for name, rows in batch.keys.items():
        clean = batch.columns[name][0].input_ids
        changed[name] = [
            (at, old, new)
            for row in rows
            for at, (old, new) in enumerate(zip(clean, row.input_ids, strict=True))
            if old != new
        ]
        assert not any(old in special for _, old, _ in changed[name])
    length = len(batch.query[0].input_ids) - 2
    assert len(changed["query"]) == pytest.approx(0.3 * 40 * length, rel=0.25)
    assert {new for _, _, new in changed["query"]} == {mask}
    start = 1 + CODE.index("other")  # behind [CLS], where every byte is a token
    assert {new for at, _, new in changed["positive"] if start <= at < start + 5} == {
        mask,
        first_of["identifier"],
    }
    start = 1 + CODE.index("return")
    assert {new for at, _, new in changed["positive"] if start < at < start + 6} == {
        mask,
        first_of["return"],
    }


def test_names_are_masked_wherever_they_stand(encoder: TextEncoder) -> None:
    head = head_of(CodeTaskConfig("names"), encoder)
    assert isinstance(head, MaskedNames)
    rows = encoder.tokenize([CODE])
    batch = encoder.collate(rows)
    places = {
        name: [at + 1 for at in range(len(CODE)) if CODE.startswith(name, at)]
        for name in ("add", "first", "other")
    }
    seen = set()
    for seed in range(12):
        asked, labels = head.asked(encoder, batch, torch.Generator().manual_seed(seed))
        hidden = labels != IGNORE
        assert torch.equal(labels[hidden], batch.ids[hidden])
        assert torch.equal(asked.ids[~hidden], batch.ids[~hidden])
        assert set(asked.ids[hidden].tolist()) <= {encoder.tokenizer.mask_token_id}
        expected = 0
        for name, starts in places.items():
            each = {tuple(hidden[at : at + len(name)].tolist()) for at in starts}
            assert each in ({(True,) * len(name)}, {(False,) * len(name)})
            expected += len(name) * len(starts) * each.pop()[0]
            seen.add((name, bool(hidden[starts[0]])))
        assert int(hidden.sum()) == expected
    assert len(seen) == 6
    (work,) = head.prepare(encoder, {head.config.column: [rows]}, torch.Generator().manual_seed(0))
    states = encoder.read(work.batch)
    wanted = mlm_loss(states, work.labels, encoder.lm_head, 1 / int((work.labels >= 0).sum()))
    torch.testing.assert_close(head(encoder, work, None), wanted)


def test_bad_settings_are_named(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        AugmentConfig(probability=1.0)
    with pytest.raises(ConfigError, match="no syntax trees"):
        made(encoder, (0, 0, 0), language="cobol")


def test_a_noisy_text_differs_by_a_word() -> None:
    words = ["reads", "all", "of", "the", "file"]
    found = {noisy_text(" ".join(words), seed) for seed in range(120)}
    dropped = {" ".join(words[:i] + words[i + 1 :]) for i in range(5)}
    twice = {" ".join(words[: i + 1] + words[i:]) for i in range(5)}
    assert dropped <= found
    assert twice <= found
    assert "all reads of the file" in found
    assert noisy_text("word", 0)
    assert noisy_text("", 0) == ""

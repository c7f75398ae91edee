from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.batching import Plan
from mmembed.gpte.config import BatchConfig, DataConfig, SourceConfig
from mmembed.gpte.curriculum import Curriculum
from mmembed.gpte.data import tokenised as module
from mmembed.gpte.data.batches import Batches, ExampleBatch, ExampleSet, PlannedBatches
from mmembed.gpte.data.examples import Report, text_hash
from mmembed.gpte.data.guides import clusters_of
from mmembed.gpte.data.streams import Stream, StreamedBatches, streamed_texts
from mmembed.gpte.data.tokenised import TextRows, tokenised
from mmembed.gpte.prompts import Prompt
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tokenizing import Tokenizing

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "foxes",
    "live",
    "here",
]


@pytest.fixture
def text_rows(wordpiece: PreTrainedTokenizerFast) -> TextRows:
    prompts = {"query": Prompt.prefix("query: "), "document": Prompt("{text} means {mask}")}
    return TextRows(Tokenizing(wordpiece, 32), TextSettings(prompts=prompts))


def _file(path: Path, rows: int, seed: int = 0, negatives: int = 3) -> SourceConfig:
    random = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(random.choice(WORDS, random.integers(1, 12)))

    lines = [
        {"query": f"{text()} {seed}", "positive": text(), "score": float(random.random())}
        | {"negatives": [text() for _ in range(negatives)]}
        for _ in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SourceConfig(str(path), negatives=("negatives",) if negatives else (), label="score")


def _same(a: ExampleBatch, b: ExampleBatch) -> bool:
    return (
        a.columns == b.columns
        and a.places == b.places
        and a.meta.keys() == b.meta.keys()
        and all(torch.equal(a.meta[name], b.meta[name]) for name in a.meta)
    )


def test_the_cache_gives_back_what_the_tokenizer_made(tmp_path: Path, text_rows: TextRows) -> None:
    source = _file(tmp_path / "a.jsonl", 30)
    held = tokenised(source, text_rows, tmp_path / "cache")
    raw = [json.loads(line) for line in Path(source.path).read_text().splitlines()]
    assert len(held) == 30
    for i, row in enumerate(raw):
        first, stop = held.text_ends[i : i + 2]
        texts = [row["query"], row["positive"], *row["negatives"]]
        roles = ["query"] + ["document"] * 4
        assert stop - first == 5
        for text, role, at in zip(texts, roles, range(first, stop), strict=True):
            prompt = text_rows.settings.prompt(role)
            (expected,) = text_rows.tokenizing.rows(prompt, [text], [None])
            found = held.row(at)
            assert found.input_ids == expected.input_ids
            assert {k: v for k, v in found.spans.items() if v} == {
                k: v for k, v in expected.spans.items() if v
            }
            assert held.hashes[at] == text_hash(text)
        assert held.labels[i] == pytest.approx(row["score"])
        assert str(held.place(i)) == f"{source.path}:{i + 1}"
        assert held.lengths[i] == sum(held.row(t).tokens for t in range(first, stop))


def test_a_cache_is_found_again_and_made_anew_when_anything_changes(
    tmp_path: Path, text_rows: TextRows
) -> None:
    source = _file(tmp_path / "a.jsonl", 10)
    cache = tmp_path / "cache"
    first = tokenised(source, text_rows, cache).folder
    assert tokenised(source, text_rows, cache).folder == first
    other_prompt = TextRows(text_rows.tokenizing, TextSettings())
    assert tokenised(source, other_prompt, cache).folder != first
    _file(tmp_path / "a.jsonl", 10, seed=1)
    assert tokenised(source, text_rows, cache).folder != first


def test_workers_make_the_same_cache(
    tmp_path: Path, text_rows: TextRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    source = _file(tmp_path / "a.jsonl", 40)
    alone = tokenised(source, text_rows, tmp_path / "alone")
    many = tokenised(source, text_rows, tmp_path / "many", workers=2)
    for file in sorted(alone.folder.iterdir()):
        assert file.read_bytes() == (many.folder / file.name).read_bytes()


def test_a_killed_worker_is_told_and_leaves_no_cache(
    tmp_path: Path, text_rows: TextRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1)
    source = _file(tmp_path / "a.jsonl", 60)
    real = module.examples_of

    def kill_later(*arguments: Any) -> Any:
        for i, example in enumerate(real(*arguments)):
            if i == 20:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            yield example

    monkeypatch.setattr(module, "examples_of", kill_later)
    with pytest.raises(InputError, match="a tokenising process died"):
        tokenised(source, text_rows, tmp_path / "cache", workers=1)
    assert not list((tmp_path / "cache").iterdir())


def test_rows_without_tokens_are_left_out_or_named(
    tmp_path: Path, text_rows: TextRows, caplog: pytest.LogCaptureFixture
) -> None:
    source = _file(tmp_path / "a.jsonl", 6, negatives=0)
    prompts = {"query": Prompt("query: {text}", pooled="text")}
    bare = TextRows(text_rows.tokenizing, TextSettings(prompts=prompts))
    lines = Path(source.path).read_text().splitlines()
    lines[2] = '{"query": "\\u200b", "positive": "p", "score": 1}'
    Path(source.path).write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.jsonl:3"):
        tokenised(source, bare, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    held = tokenised(source, bare, tmp_path / "cache", bad_rows="skip")
    assert [held.place(i).number for i in range(len(held))] == [1, 2, 4, 5, 6]
    assert "1 without tokens" in caplog.text


def test_a_source_without_usable_rows(tmp_path: Path, text_rows: TextRows) -> None:
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"no usable row.*a\.jsonl:1: broken JSON"):
        tokenised(SourceConfig(str(tmp_path / "a.jsonl")), text_rows, tmp_path, bad_rows="skip")


def test_batches_hold_what_the_plan_says(tmp_path: Path, text_rows: TextRows) -> None:
    sources = [_file(tmp_path / f"{i}.jsonl", 20, seed=i) for i in range(2)]
    held = [tokenised(source, text_rows, tmp_path / "cache") for source in sources]
    examples = ExampleSet(held, negatives=2)
    batch = examples.batch([3, 25], (0, 0, 0))
    assert batch.places == [f"{sources[0].path}:4", f"{sources[1].path}:6"]
    assert batch.source == -1
    assert batch.negatives_per_query == 2
    assert len(batch.negative) == 4
    assert batch.meta["query_hash"].tolist() == [
        held[0].hashes[held[0].text_ends[3]],
        held[1].hashes[held[1].text_ends[5]],
    ]
    assert batch.meta["label"].tolist() == [held[0].labels[3], held[1].labels[5]]
    drawn = {tuple(examples.batch([3], (0, e, 0)).meta["negative_hash"].tolist()) for e in range(9)}
    assert len(drawn) == 3  # every pair of the three, over the epochs
    assert examples.batch([3, 4], (0, 0, 0)).source == 0
    few = ExampleSet(held, negatives=5).batch([0], (0, 0, 0)).meta["negative_hash"].tolist()
    assert few[:3] == held[0].hashes[2:5].tolist()
    assert few[3:] == few[:2]


def test_a_curriculum_draws_negatives_by_their_scores(tmp_path: Path, text_rows: TextRows) -> None:
    path = tmp_path / "scored.jsonl"
    row = {"query": "a fox", "positive": "the fox", "negatives": ["dog", "lazy dog", "here"]}
    path.write_text(json.dumps({**row, "scores": [0.9, 0.1, 0.8, 0.2]}) + "\n")
    source = SourceConfig(str(path), negatives=("negatives",), teacher="scores")
    held = tokenised(source, text_rows, tmp_path / "cache")
    examples = ExampleSet([held], 1, curriculum=Curriculum(1.0, 0.01, 11))

    def drawn(step: int) -> list[int]:
        batches = [examples.batch([0], (0, epoch, step)) for epoch in range(300)]
        found = [int(batch.meta["negative_hash"]) for batch in batches]
        return [found.count(int(held.hashes[2 + i])) for i in range(3)]

    chances = np.exp([0.1, 0.8, 0.2]) / np.exp([0.1, 0.8, 0.2]).sum()
    assert np.abs(np.array(drawn(0)) / 300 - chances).max() < 0.1
    assert drawn(10) == [0, 300, 0]
    many = ExampleSet([held], 4, curriculum=Curriculum(1.0, 0.01, 11)).batch([0], (0, 0, 10))
    assert set(many.meta["negative_hash"].tolist()) == set(held.hashes[2:5].tolist())
    with pytest.raises(ConfigError, match="scores of every source"):
        DataConfig((SourceConfig(str(path), negatives=("n",)),), 1, Curriculum())


def test_rows_of_other_columns_do_not_mix(tmp_path: Path, text_rows: TextRows) -> None:
    sources = [_file(tmp_path / f"{i}.jsonl", 5, negatives=i) for i in range(2)]
    held = [tokenised(source, text_rows, tmp_path / "cache") for source in sources]
    with pytest.raises(InputError, match="homogeneous"):
        ExampleSet(held, negatives=1).batch([0, 7], (0, 0, 0))
    assert not ExampleSet(held).batch([0, 7], (0, 0, 0)).negative


def test_workers_fetch_the_same_batches_from_any_step(tmp_path: Path, text_rows: TextRows) -> None:
    held = [tokenised(_file(tmp_path / "a.jsonl", 30), text_rows, tmp_path / "cache")]
    examples = ExampleSet(held, negatives=2)
    plan = Plan((30,), BatchConfig(size=8), world=2)
    straight = list(islice(PlannedBatches(examples, plan, rank=1).start_at(0), 8))
    for workers, start in ((2, 0), (1, 3)):
        found = islice(PlannedBatches(examples, plan, 1, workers).start_at(start), 5)
        assert all(_same(a, b) for a, b in zip(found, straight[start:], strict=False))
    assert PlannedBatches(examples, plan).epoch_of(6) == 1.5


def test_loading_draws_nothing_from_the_global_generator(
    tmp_path: Path, text_rows: TextRows
) -> None:
    held = [tokenised(_file(tmp_path / "a.jsonl", 30), text_rows, tmp_path / "cache")]
    batches = PlannedBatches(ExampleSet(held, 1), Plan((30,), BatchConfig(size=8)))
    before = torch.get_rng_state()
    list(islice(batches.start_at(2), 6))
    assert torch.equal(torch.get_rng_state(), before)


def _streamed(
    sources: list[SourceConfig], rows: TextRows, rank: int = 0, world: int = 1
) -> Batches:
    data = DataConfig(tuple(sources), negatives=2, streaming=True, buffer=10)
    return streamed_texts(data, BatchConfig(size=6), rows, seed=1, rank=rank, world=world)


def test_a_stream_resumes_and_is_shared_between_processes(
    tmp_path: Path, text_rows: TextRows
) -> None:
    sources = [_file(tmp_path / f"{i}.jsonl", 20, seed=i) for i in range(2)]
    straight = list(islice(_streamed(sources, text_rows).start_at(0), 12))
    resumed = list(islice(_streamed(sources, text_rows).start_at(7), 5))
    assert all(_same(a, b) for a, b in zip(resumed, straight[7:], strict=True))
    ranks = [list(islice(_streamed(sources, text_rows, r, 2).start_at(0), 3)) for r in range(2)]
    for step, whole in enumerate(straight[:3]):
        assert whole.places[::2] == ranks[0][step].places
        assert whole.places[1::2] == ranks[1][step].places
    with pytest.raises(ConfigError, match=r"schedule\.steps"):
        _streamed(sources, text_rows).steps(1)


def test_a_stream_without_end_gives_batches() -> None:
    """Of a source no more is read than fills the buffer and the batches that were asked for."""
    reads = count()

    def endless(report: Report) -> Iterator[int]:
        return reads

    def made(chosen: Sequence[tuple[int, int]], step: int) -> Any:
        return [row for _, row in chosen]

    streams = [Stream("endless", endless)]
    batches = StreamedBatches(streams, BatchConfig(size=4), made, buffer=10)
    first, second = islice(batches.start_at(0), 2)
    assert len({*first, *second}) == 8
    assert next(reads) == 10 + 8


def test_a_round_of_a_stream_has_every_row_once(tmp_path: Path, text_rows: TextRows) -> None:
    source = _file(tmp_path / "a.jsonl", 24)
    batches = list(islice(_streamed([source], text_rows).start_at(0), 8))
    first = [place for batch in batches[:4] for place in batch.places]
    assert len(set(first)) == 24
    assert first != sorted(first)


def test_clusters_find_what_lies_together() -> None:
    centres = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    truth = torch.arange(4).repeat_interleave(25)
    vectors = torch.nn.functional.normalize(centres[truth] + 0.05 * torch.randn(100, 16), dim=1)
    found = clusters_of(vectors, rows=10)  # more clusters than there are groups
    for label in set(found.tolist()):
        assert len(set(truth[found == label].tolist())) == 1

"""Streams of rows with media: shards by process, exact resume, and a node that is killed."""

from __future__ import annotations

import io
import sys
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "gpte"))
from media_cases import media_recipe, run, write_media_rows
from processes import run_in_two

from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.embedder import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import BatchConfig
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.data.sources import Share
from mmembed.gpte.recipe import to_yaml
from mmembed.multimodal.config import MediaDataConfig, MediaSourceConfig
from mmembed.multimodal.data.batches import MediaExamples
from mmembed.multimodal.data.reading import streamed_media

ROWS = 3  # of a shard


def write_shards(folder: Path, count: int = 4) -> MediaSourceConfig:
    """Shards of a text and an image a sample."""
    write_media_rows(folder, count * ROWS)
    (folder / "shards").mkdir()
    for shard in range(count):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as archive:
            for i in range(shard * ROWS, (shard + 1) * ROWS):
                text = f"card number {i}".encode()
                member = tarfile.TarInfo(f"{i}.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
                archive.add(folder / f"{i}-0.png", f"{i}.png")
    where = str(folder / "shards")
    return MediaSourceConfig(where, query={"text": "txt"}, positive={"image": "png"})


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> MediaExamples:
    folder = tiny_vlm("qwen2_vl", tmp_path_factory.mktemp("model") / "qwen2_vl")
    return MediaExamples([], Embedder.from_pretrained(folder).backbone)


def batches(
    examples: MediaExamples,
    source: MediaSourceConfig,
    count: int,
    *,
    share: tuple[int, int] = (0, 1),
    start: int = 0,
    **data: Any,
) -> list[ExampleBatch]:
    config = MediaDataConfig((source,), streaming=True, buffer=4, **data)
    batch = BatchConfig(size=3 * share[1])
    streamed = streamed_media(config, batch, examples, seed=1, share=Share(*share))
    return list(islice(streamed.start_at(start), count))


def files(found: list[ExampleBatch]) -> set[str]:
    return {Path(place.rpartition(":")[0]).name for batch in found for place in batch.places}


def test_each_process_opens_its_own_shards_alone(examples: MediaExamples, tmp_path: Path) -> None:
    source = write_shards(tmp_path)
    # What is no shard of a process cannot hurt it.
    (tmp_path / "shards" / "3.tar").write_bytes(b"broken")
    first = batches(examples, source, 2, share=(0, 2))
    assert files(first) == {"0.tar", "2.tar"}
    assert len({place for batch in first for place in batch.places}) == 2 * ROWS
    with pytest.raises(InputError, match=r"3\.tar"):
        batches(examples, source, 3, share=(1, 2))


def test_rows_of_a_single_file_are_dealt_out(examples: MediaExamples, tmp_path: Path) -> None:
    source = MediaSourceConfig(str(write_media_rows(tmp_path, 12)))
    dealt = [
        {place for batch in batches(examples, source, 2, share=(rank, 2)) for place in batch.places}
        for rank in range(2)
    ]
    assert [len(places) for places in dealt] == [6, 6]
    assert not dealt[0] & dealt[1]


def test_a_stream_goes_on_where_it_was(examples: MediaExamples, tmp_path: Path) -> None:
    source = write_shards(tmp_path)
    straight = batches(examples, source, 7)
    assert len({place for batch in straight[:4] for place in batch.places}) == 4 * ROWS
    for a, b in zip(batches(examples, source, 3, start=4), straight[4:], strict=True):
        assert list(a.places) == list(b.places)
        assert [row.input_ids for row in a.query] == [row.input_ids for row in b.query]
        for one, other in zip(a.positive or [], b.positive or [], strict=True):
            assert one.extras.keys() == other.extras.keys()


def test_interleaved_batches_hold_blocks_of_one_source(
    examples: MediaExamples, tmp_path: Path
) -> None:
    sources = [MediaSourceConfig(str(write_media_rows(tmp_path / name, 8))) for name in "ab"]
    config = MediaDataConfig(tuple(sources), streaming=True, buffer=4)
    batch = BatchConfig(size=6, order="interleaved", block=2)
    found = list(islice(streamed_media(config, batch, examples, seed=1).start_at(0), 4))
    owners = [[place.rpartition(":")[0] for place in one.places] for one in found]
    assert all(one[at] == one[at + 1] for one in owners for at in (0, 2, 4))
    assert any(len(set(one)) == 2 for one in owners)


def test_rows_held_out_for_testing_are_not_streamed(
    examples: MediaExamples, tmp_path: Path
) -> None:
    file = write_media_rows(tmp_path, 6)
    kept = tmp_path / "test.jsonl"
    kept.write_text(file.read_text(encoding="utf-8").splitlines()[1] + "\n", encoding="utf-8")
    source = MediaSourceConfig(str(file))
    held_out = (MediaSourceConfig(str(kept), root=str(tmp_path)),)
    found = batches(examples, source, 4, held_out=held_out, bad_rows="skip")
    assert f"{file}:2" not in {place for batch in found for place in batch.places}
    with pytest.raises(InputError, match="held out for testing"):
        batches(examples, source, 4, held_out=held_out)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"schedule": {"epochs": 1}}, r"schedule\.steps"),
        ({"batch": {"size": 4, "mixture": "sizes"}}, "mixtures by size"),
        ({"data": {"check_media": True}}, "streams have no end"),
    ],
)
def test_what_a_stream_cannot_know_is_said(
    stage: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = {"streaming": True, **stage.get("data", {})}
    with pytest.raises(ConfigError, match=message):
        run(media_recipe(tmp_path, {**stage, "data": data}))


@pytest.mark.slow
def test_a_killed_run_of_two_processes_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    source = write_shards(tmp_path)
    columns = {"path": source.path, "query": source.query, "positive": source.positive}
    stage = {
        "source": columns,
        "data": {"streaming": True, "buffer": 4},
        "schedule": {"steps": 5, "lr": 1e-3},
        "checkpoint": {"every": 2},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(media_recipe(tmp_path, stage)), encoding="utf-8")
    script = Path(__file__).with_name("media_cases.py")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_in_two(script, recipe, whole)
    with pytest.raises(AssertionError):
        run_in_two(script, recipe, parts, "3")
    assert [path.name for path in (parts / "only/checkpoints").iterdir()] == ["step-00000002"]
    run_in_two(script, recipe, parts)
    expected = load_file(whole / "only/model/model.safetensors")
    for name, tensor in load_file(parts / "only/model/model.safetensors").items():
        assert torch.equal(expected[name], tensor), name

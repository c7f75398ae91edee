"""Options of a stage at work: all kinds of streams, precision, adapters, trackers, lost workers."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe, write_rows

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.batching import Plan
from mmembed.gpte.config import BatchConfig
from mmembed.gpte.data.batches import ExampleBatch, PlannedBatches
from mmembed.gpte.recipe import Recipe
from mmembed.gpte.run import run_recipe


def metrics(built: Recipe) -> list[dict[str, float]]:
    lines = (Path(built.output) / "only/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_resumes(built: Recipe) -> None:
    """Stopped twice, it ends with the same weights, bit by bit."""
    run_recipe(built)
    parted = replace(built, output=built.output + "-parted")
    for stop in (3, 7):
        assert run_recipe(parted, stop_after=stop) == {}
    run_recipe(parted)
    whole, other = (
        load_file(Path(one.output) / "only/model/model.safetensors") for one in (built, parted)
    )
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def write_kinds(folder: Path) -> list[dict[str, Any]]:
    """The same kind of rows as JSONL, Parquet and a WebDataset."""
    folder.mkdir(parents=True)
    rows = [
        [json.loads(line) for line in write_rows(folder / "a.jsonl", 9, seed).open()]
        for seed in (1, 2, 3)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[0]))
    pq.write_table(pa.Table.from_pylist(rows[1]), folder / "b.parquet")
    with tarfile.open(folder / "c.tar", "w") as archive:
        for i, row in enumerate(rows[2]):
            for field in ("query", "positive"):
                info = tarfile.TarInfo(f"{i:03}.{field}.txt")
                info.size = len(row[field].encode())
                archive.addfile(info, io.BytesIO(row[field].encode()))
    return [{"path": str(folder / name)} for name in ("a.jsonl", "b.parquet", "c.tar")]


@pytest.mark.parametrize("order", ["mixed", "homogeneous"])
def test_streams_of_every_kind_train_and_resume(order: str, tmp_path: Path) -> None:
    sources = write_kinds(tmp_path / "kinds")
    data = {"sources": sources, "streaming": True, "buffer": 4}
    batch = {"size": 4, "order": order}
    assert_resumes(recipe(tmp_path, {"data": data, "batch": batch}))


def test_a_stream_needs_to_know_its_steps(tmp_path: Path) -> None:
    stage = {"data": {"streaming": True}, "schedule": {"epochs": 1, "lr": 1e-3}}
    with pytest.raises(ConfigError, match=r"needs schedule\.steps"):
        run_recipe(recipe(tmp_path, stage))


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(streaming: bool, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    write_rows(folder / "train.jsonl", 12)
    data = {"sources": [{"path": f"hf://{folder}:train"}], "streaming": streaming}
    built = recipe(tmp_path, {"data": data})
    assert run_recipe(built)["only"].model is not None
    assert len(metrics(built)) == 10


CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {"precision": "bf16"},
    "bfloat16 cached": {"precision": "bf16", "batch": {"size": 4, "chunk_rows": 3}},
    "dora": {"encoder": {"lora": {"rank": 2, "dropout": 0.1, "dora": True}}},
    "checkpointing": {"encoder": {"gradient_checkpointing": True}},
    "momentum positives": {
        "objective": {"name": "infonce", "temperature": 0.05, "masks": ["duplicates"]},
        "momentum": {"decay": 0.9, "queue": 8, "positives": "momentum"},
        "batch": {"size": 4, "chunk_rows": 3},
    },
    "momentum of both sides": {
        "objective": {"name": "moco", "learn_temperature": True},
        "momentum": {"decay": 0.9, "queue": 6, "sides": "both"},
        "batch": {"size": 4, "chunk_rows": 3},
    },
    "token budget": {"batch": {"size": 6, "tokens": 200, "chunk_tokens": 90}},
}


@pytest.mark.parametrize("case", CASES)
def test_what_else_resumes_exactly(case: str, tmp_path: Path) -> None:
    built = recipe(tmp_path, dict(CASES[case]))
    assert_resumes(built)
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 for line in metrics(built))


def test_tensorboard_gets_the_parts_of_the_loss_before_weighting(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    parts = [
        {"weight": 0.5, "objective": {"name": "infonce", "temperature": 0.05}},
        {"weight": 3.0, "label": "sides", "objective": {"name": "cosine"}},
    ]
    stage = {
        "objective": {"name": "joint", "parts": parts},
        "source": {"label": "score"},
        "trackers": ["tensorboard"],
    }
    built = recipe(tmp_path, stage)
    run_recipe(built)
    (file,) = Path(built.output).rglob("events.out.tfevents*")
    found = events.EventAccumulator(str(file)).Reload()
    names = set(found.Tags()["scalars"])
    logged = metrics(built)
    assert set(logged[0]) - {"step"} <= names
    assert {"lr", "grad_norm", "infonce", "sides/cosine"} <= names
    for name in ("loss", "infonce", "sides/cosine"):
        values = [event.value for event in found.Scalars(name)]
        assert values == pytest.approx([line[name] for line in logged], rel=1e-6)
    for line in logged:
        assert line["loss"] == pytest.approx(
            0.5 * line["infonce"] + 3.0 * line["sides/cosine"], rel=1e-5
        )


class _Deadly:
    """Rows whose reading kills the process that reads them."""

    def __len__(self) -> int:
        return 8

    def batch(self, rows: Sequence[int], draw: tuple[int, int]) -> ExampleBatch:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_loading_worker_is_told() -> None:
    batches = PlannedBatches(_Deadly(), Plan((8,), BatchConfig(size=2), 0), workers=1)
    with pytest.raises(InputError, match="a loading process died"):
        next(batches.start_at(0))

"""The same recipes in one process and in two, which have to end alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_cases import recipe, write_rows

from mmembed.gpte.recipe import load_recipe, to_yaml
from mmembed.gpte.run import run_recipe

NO_DROPOUT = {"dropout": 0.0}


def run_alone(folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """Run every case in this process; its recipe is left for others."""
    for name, case in cases.items():
        held_out = write_rows(folder / f"{name}-held.jsonl", 12, seed=5)
        sets = [{"kind": "retrieval", "source": {"path": str(held_out), "name": "held"}}]
        stage = {
            "encoder": NO_DROPOUT,
            "schedule": {"steps": 4, "lr": 1e-3, "eps": 1e-4},  # or Adam magnifies noise
            "evaluation": {"sets": sets, "every": 1, "best": "held/ndcg@10"},
            **case,
        }
        one = recipe(folder / name, stage)
        run_recipe(one)
        (folder / f"{name}.yaml").write_text(to_yaml(one), encoding="utf-8")


def run_stopped(folder: Path, name: str, cases: Sequence[str]) -> None:
    """Each case is stopped after its second step and run again to its end, in a folder NAME."""
    for case in cases:
        one = load_recipe(folder / f"{case}.yaml", [f"output={folder / case / name}"])
        run_recipe(one, stop_after=2)
        run_recipe(one)


def compare(one: Path, two: Path, *, rough: bool = False) -> None:
    """Assert that a stage of one process and one of two wrote the same model and measures."""
    whole, sharded = (load_file(run / "model/model.safetensors") for run in (one, two))
    assert whole.keys() == sharded.keys()
    for name, tensor in whole.items():
        assert sharded[name].dtype == torch.float32
        if not rough:
            torch.testing.assert_close(sharded[name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    logs = [[json.loads(line) for line in (r / "metrics.jsonl").open()] for r in (one, two)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for ours, theirs in zip(*logs, strict=True):
        for key in ("loss", "grad_norm", "held/ndcg@10"):
            assert (key in ours) == (key in theirs)
            wanted = pytest.approx(theirs.get(key, 0.0), rel=0.2 if rough else 1e-4)
            assert ours.get(key, 0.0) == wanted

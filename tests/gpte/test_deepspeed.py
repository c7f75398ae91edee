"""DeepSpeed over two processes: the model that one process trains, resumed and saved whole."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from pairs import NO_DROPOUT, compare, run_alone
from processes import run_in_two

from mmembed.errors import ConfigError
from mmembed.gpte.training import stage_accelerator
from mmembed.gpte.wrapping import prepare

CASES: dict[str, dict[str, Any]] = {
    # What the objective learns is read outside the model's forward.
    "learned": {"objective": {"name": "sigmoid"}, "batch": {"size": 4, "accumulate": 2}},
    "cached": {
        "source": {"negatives": ["negatives"]},
        "data": {"negatives": 1},
        "batch": {"size": 4, "chunk_rows": 1, "accumulate": 2},
        "encoder": {"lora": {"rank": 2}, **NO_DROPOUT},
    },
    "queued": {
        "momentum": {"decay": 0.9, "queue": 8},
        "encoder": {"lm_head": True, **NO_DROPOUT},
    },
    "bf16": {"precision": "bf16"},
}

needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install deepspeed"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deepspeed")
    run_alone(folder, CASES)
    run_in_two(Path(__file__).with_name("deepspeed_cases.py"), folder)
    return folder


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(560)  # the first start compiles DeepSpeed's messages between processes
@pytest.mark.parametrize("case", CASES)
def test_training_is_the_training_of_one_process(case: str, runs: Path) -> None:
    compare(runs / case / "run/only", runs / case / "sharded/only", rough=case == "bf16")


@needs_deepspeed
@pytest.mark.slow
def test_checkpoints_hold_a_part_of_the_optimiser_on_each_process(runs: Path) -> None:
    (checkpoint,) = (runs / "learned/sharded/only/checkpoints").iterdir()
    parts = sorted(path.name for path in checkpoint.rglob("*optim_states.pt"))
    assert [part.partition("_mp_")[0].rpartition("_")[2] for part in parts] == ["0", "1"]


@needs_deepspeed
@pytest.mark.parametrize(
    ("stage", "device", "precision", "told"),
    [(2, "none", "no", "stage 2"), (1, "cpu", "no", "offloading"), (1, "none", "fp16", "fp16")],
)
def test_what_is_not_run_is_refused(stage: int, device: str, precision: str, told: str) -> None:
    zero = {"stage": stage, "offload_optimizer": {"device": device}}
    plugin = SimpleNamespace(deepspeed_config={"zero_optimization": zero})
    accelerator: Any = SimpleNamespace(
        distributed_type=SimpleNamespace(value="DEEPSPEED"),
        state=SimpleNamespace(deepspeed_plugin=plugin),
        mixed_precision=precision,
    )
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    with pytest.raises(ConfigError, match=f"{told} is not supported: use stage 1"):
        prepare(accelerator, layer, optimizer, torch.nn.ModuleDict())


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_absent_deepspeed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    stage: Any = SimpleNamespace(precision="no", trackers=())
    with (
        pytest.raises(ConfigError, match="pip install 'deepspeed"),
        stage_accelerator(stage, tmp_path),
    ):
        raise AssertionError("an accelerator without DeepSpeed")

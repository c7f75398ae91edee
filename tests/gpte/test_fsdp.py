"""FSDP2 over two processes: the model that one process trains, sharded, resumed and saved whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe, write_rows

from mmembed.errors import ConfigError
from mmembed.gpte.recipe import to_yaml
from mmembed.gpte.run import run_recipe
from mmembed.gpte.wrapping import prepare

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
NO_DROPOUT = {"dropout": 0.0}
CASES: dict[str, dict[str, Any]] = {
    # Its scale and bias stay whole beside the shards.
    "learned": {"objective": {"name": "sigmoid"}, "batch": {"size": 4, "accumulate": 2}},
    "cached": {
        "source": {"negatives": ["negatives"]},
        "data": {"negatives": 1},
        "batch": {"size": 4, "chunk_rows": 2},
        "encoder": {"lora": {"rank": 2}, **NO_DROPOUT},
    },
    # A momentum encoder follows shards; embeddings are tied to the language model's head.
    "queued": {
        "momentum": {"decay": 0.9, "queue": 8},
        "encoder": {"lm_head": True, **NO_DROPOUT},
    },
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a case, with the run of one process and that of two; one start for all."""
    folder = tmp_path_factory.mktemp("fsdp")
    for name, case in CASES.items():
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("fsdp_cases.py")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors.decode()[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sharded_training_is_the_training_of_one_process(case: str, runs: Path) -> None:
    one, two = runs / case / "run/only", runs / case / "sharded/only"
    whole, sharded = (load_file(run / "model/model.safetensors") for run in (one, two))
    assert whole.keys() == sharded.keys()
    rough = case == "bf16"  # layers compute in bfloat16, under autocast some parts do not
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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_checkpoints_hold_a_part_on_each_process(case: str, runs: Path) -> None:
    (checkpoint,) = (runs / case / "sharded/only/checkpoints").iterdir()
    for part in ("pytorch_model_fsdp_0", "optimizer_0"):
        pieces = sorted(path.name for path in (checkpoint / part).glob("*.distcp"))
        assert pieces == ["__0_0.distcp", "__1_0.distcp"]


def test_shipped_configurations_are_accelerates() -> None:
    kinds = {}
    for file in CONFIGS.glob("*.yaml"):
        kinds[file.stem] = load_config_from_file(str(file)).distributed_type.value
    assert kinds == {"cpu": "MULTI_CPU", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}


def test_other_kinds_of_sharding_are_refused() -> None:
    class Sharding:
        class distributed_type:  # noqa: N801
            value = "FSDP"

        is_fsdp2 = False

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    with pytest.raises(ConfigError, match="use FSDP version 2"):
        prepare(Sharding(), layer, optimizer, torch.nn.ModuleDict())  # type: ignore[arg-type]

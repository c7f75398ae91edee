"""FSDP2 over two processes: the model that one process trains, sharded, resumed and saved whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

sys.path.insert(0, str(Path(__file__).parent))
from pairs import NO_DROPOUT, compare, run_alone
from processes import run_in_two

from mmembed.errors import ConfigError
from mmembed.gpte.wrapping import prepare

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
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
    # Five rows make two chunks on one process and one on the other, which waits for both.
    "uneven": {
        "source": {"negatives": ["negatives"]},
        "data": {"negatives": 1},
        "batch": {"size": 5, "chunk_rows": 2, "accumulate": 2},
        # All tokens are asked, unmasked: what is drawn differs from process to process.
        "tasks": [{"task": "mlm", "probability": 0.999999, "keep": 1.0, "random": 0.0}],
        "encoder": {"lm_head": True, **NO_DROPOUT},
    },
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a case, with the run of one process and that of two; one start for all."""
    folder = tmp_path_factory.mktemp("fsdp")
    run_alone(folder, CASES)
    run_in_two(Path(__file__).with_name("fsdp_cases.py"), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sharded_training_is_the_training_of_one_process(case: str, runs: Path) -> None:
    # Layers compute in bfloat16, under autocast some parts do not.
    compare(runs / case / "run/only", runs / case / "sharded/only", rough=case == "bf16")


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
    assert kinds == {
        "cpu": "MULTI_CPU",
        "ddp": "MULTI_GPU",
        "deepspeed": "DEEPSPEED",
        "fsdp2": "FSDP",
    }


def test_other_kinds_of_sharding_are_refused() -> None:
    class Sharding:
        class distributed_type:  # noqa: N801
            value = "FSDP"

        is_fsdp2 = False

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    with pytest.raises(ConfigError, match="use FSDP version 2"):
        prepare(Sharding(), layer, optimizer, torch.nn.ModuleDict())  # type: ignore[arg-type]

"""FSDP2 and DeepSpeed over two processes: the model of one process, resumed and saved whole."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

sys.path.insert(0, str(Path(__file__).parent))
from pairs import NO_DROPOUT, compare, run_alone
from processes import run_in_two

from mmembed.errors import ConfigError
from mmembed.gpte.training import stage_accelerator
from mmembed.gpte.wrapping import prepare

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
NEGATIVES = {"source": {"negatives": ["negatives"]}, "data": {"negatives": 1}}
CASES: dict[str, dict[str, Any]] = {
    # Its scale and bias stay whole, and are read outside the model's forward.
    "learned": {"objective": {"name": "sigmoid"}, "batch": {"size": 4, "accumulate": 2}},
    "cached": {
        **NEGATIVES,
        "batch": {"size": 4, "chunk_rows": 1, "accumulate": 2},
        "encoder": {"lora": {"rank": 2}, **NO_DROPOUT},
    },
    # A momentum encoder follows parts; embeddings are tied to the language model's head.
    "queued": {
        "momentum": {"decay": 0.9, "queue": 8},
        "encoder": {"lm_head": True, **NO_DROPOUT},
    },
    # Five rows make two chunks on one process and one on the other, which waits for both.
    "uneven": {
        **NEGATIVES,
        "batch": {"size": 5, "chunk_rows": 2, "accumulate": 2},
        # All tokens are asked, unmasked: what is drawn differs from process to process.
        "tasks": [{"task": "mlm", "probability": 0.999999, "keep": 1.0, "random": 0.0}],
        "encoder": {"lm_head": True, **NO_DROPOUT},
    },
    "bf16": {"precision": "bf16"},
}
needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install deepspeed"
)
KINDS = {
    "fsdp2": list(CASES),
    "zero1": list(CASES),
    "zero2": ["cached", "queued", "uneven"],  # gradients travel in every backward pass
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a case, with the run of one process."""
    folder = tmp_path_factory.mktemp("sharded")
    run_alone(folder, CASES)
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=needs_deepspeed if k != "fsdp2" else ()) for k in KINDS],
)
def kind(request: pytest.FixtureRequest, alone: Path) -> str:
    """A kind, of whose cases there are runs of two processes too; one start for all."""
    name: str = request.param
    run_in_two(Path(__file__).with_name("sharded_cases.py"), name, alone, *KINDS[name])
    return name


@pytest.mark.slow
def test_training_is_the_training_of_one_process(kind: str, alone: Path) -> None:
    for case in KINDS[kind]:
        # Layers compute in bfloat16, under autocast some parts do not.
        compare(alone / case / "run/only", alone / case / kind / "only", rough=case == "bf16")


@pytest.mark.slow
def test_checkpoints_hold_a_part_on_each_process(kind: str, alone: Path) -> None:
    for case in KINDS[kind]:
        (checkpoint,) = (alone / case / kind / "only/checkpoints").iterdir()
        if kind == "fsdp2":
            for part in ("pytorch_model_fsdp_0", "optimizer_0"):
                pieces = sorted(path.name for path in (checkpoint / part).glob("*.distcp"))
                assert pieces == ["__0_0.distcp", "__1_0.distcp"]
        else:
            parts = sorted(path.name for path in checkpoint.rglob("*optim_states.pt"))
            assert [part.partition("_mp_")[0].rpartition("_")[2] for part in parts] == ["0", "1"]


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


def refusal(accelerator: Any, told: str) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    with pytest.raises(ConfigError, match=told):
        prepare(accelerator, layer, optimizer, torch.nn.ModuleDict())


def test_the_first_fsdp_is_refused() -> None:
    kind = SimpleNamespace(value="FSDP")
    refusal(SimpleNamespace(distributed_type=kind, is_fsdp2=False), "use FSDP version 2")


@needs_deepspeed
@pytest.mark.parametrize(
    ("stage", "device", "precision", "told"),
    [(3, "none", "no", "stage 3"), (1, "cpu", "no", "offloading"), (1, "none", "fp16", "fp16")],
)
def test_what_deepspeed_does_not_run_is_refused(
    stage: int, device: str, precision: str, told: str
) -> None:
    zero = {"stage": stage, "offload_optimizer": {"device": device}}
    plugin = SimpleNamespace(deepspeed_config={"zero_optimization": zero})
    accelerator = SimpleNamespace(
        distributed_type=SimpleNamespace(value="DEEPSPEED"),
        state=SimpleNamespace(deepspeed_plugin=plugin),
        mixed_precision=precision,
    )
    refusal(accelerator, f"{told} is not supported: use stage 1 or 2")


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_absent_deepspeed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    stage: Any = SimpleNamespace(precision="no", trackers=())
    with (
        pytest.raises(ConfigError, match="pip install 'deepspeed"),
        stage_accelerator(stage, tmp_path),
    ):
        raise AssertionError("an accelerator without DeepSpeed")

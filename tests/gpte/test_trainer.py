"""The training loop: exact resume, accumulation, processes, and what happens when things break."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from processes import run_in_two
from training_cases import recipe, write_rows

from mmembed.errors import ConfigError, InputError, TrainingError
from mmembed.gpte.config import ScheduleConfig
from mmembed.gpte.dropout import dropout_at, set_dropout
from mmembed.gpte.objectives import SCD, learned_parameters
from mmembed.gpte.recipe import Recipe, to_yaml
from mmembed.gpte.run import run_recipe
from mmembed.gpte.starting import parameter_groups
from mmembed.gpte.stepping import Stepper
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model
from mmembed.gpte.trainer import Step

QUEUE = {"name": "infonce", "temperature": 0.05, "masks": ["duplicates"]}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"batch": {"size": 4, "chunk_rows": 3}},
    "accumulated": {"batch": {"size": 4, "accumulate": 2}},
    "queue": {"objective": QUEUE, "momentum": {"decay": 0.9, "queue": 8}},
    "lora": {"encoder": {"lora": {"rank": 2, "dropout": 0.1}}},
    "learned temperature": {"objective": {"name": "sigmoid"}},
    "hard negatives": {
        "source": {"negatives": ["negatives"]},
        "data": {"negatives": 1},
        "batch": {"size": 4, "chunk_rows": 3},
    },
    "with mlm": {
        "tasks": [{"task": "mlm"}],
        "encoder": {"lm_head": True},
        "batch": {"size": 4, "chunk_rows": 2},
    },
}


def weights(built: Recipe) -> dict[str, Tensor]:
    return load_file(Path(built.output) / "only" / "model" / "model.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_same_run(case: str, tmp_path: Path) -> None:
    """Ten steps of which the seventh ends an epoch; stopped before, at and after that."""
    whole = recipe(tmp_path, dict(CASES[case]))
    run_recipe(whole)
    parted = replace(whole, output=str(tmp_path / "parted"))
    for stop in (5, 7, 8):
        assert run_recipe(parted, stop_after=stop) == {}
    outcome = run_recipe(parted)["only"]
    assert equal(weights(whole), weights(parted))
    logs = [
        [json.loads(line) for line in (Path(r.output) / "only/metrics.jsonl").open()]
        for r in (whole, parted)
    ]
    for log in logs:
        assert [line["step"] for line in log] == list(range(1, 11))
        for line in log:
            del line["rows_per_second"], line["tokens_per_second"]
    assert logs[0] == logs[1]
    assert outcome.model is not None
    start = TextEncoder.from_pretrained(tmp_path / "bert").state_dict()
    trained = TextEncoder.from_pretrained(outcome.model).state_dict()
    assert any(not torch.equal(start[name], trained[name]) for name in start)
    assert run_recipe(parted)["only"] == outcome  # nothing is done twice


def test_accumulated_batches_are_one_batch_where_rows_do_not_meet(tmp_path: Path) -> None:
    objective = {"name": "cosine"}  # a mean over rows, so halves add up
    common = {"objective": objective, "source": {"label": "score"}, "encoder": {"dropout": 0.0}}
    schedule = {"steps": 1, "lr": 1e-3, "clip": 0.0, "weight_decay": 0.0}
    once = recipe(tmp_path, {**common, "schedule": schedule, "batch": {"size": 24}}, rows=24)
    run_recipe(once)
    twice = recipe(
        tmp_path,
        {**common, "schedule": schedule, "batch": {"size": 12, "accumulate": 2}},
    )
    twice = replace(twice, output=str(tmp_path / "twice"))
    run_recipe(twice)
    losses = [
        json.loads((Path(r.output) / "only/metrics.jsonl").read_text())["loss"]
        for r in (once, twice)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    norms = [
        json.loads((Path(r.output) / "only/metrics.jsonl").read_text())["grad_norm"]
        for r in (once, twice)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "hard negatives", "queue", "learned temperature"])
def test_two_processes_train_the_model_that_one_does(case: str, tmp_path: Path) -> None:
    stage = dict(CASES[case])
    stage["encoder"] = {**stage.get("encoder", {}), "dropout": 0.0}
    stage["schedule"] = {"steps": 4, "lr": 1e-3, "eps": 1e-4}  # Adam's first steps magnify noise
    one = recipe(tmp_path, stage)
    run_recipe(one)
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(one), encoding="utf-8")
    script = Path(__file__).with_name("training_cases.py")
    run_in_two(script, file, tmp_path / "two")
    two = load_file(tmp_path / "two/only/model/model.safetensors")
    for name, tensor in weights(one).items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=2e-6, msg=name)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    stage = {
        "schedule": {"steps": 10, "lr": 1e20, "clip": 0.0},
        "checkpoint": {"every": 1},
        "encoder": {"dropout": 0.0},
    }
    broken = recipe(tmp_path, stage)
    with pytest.raises(TrainingError, match=r"stage only, step \d+: the loss is nan.*rows\.jsonl"):
        run_recipe(broken)
    kept = list((Path(broken.output) / "only/checkpoints").iterdir())
    assert [path.name[:5] for path in kept] == ["step-"]
    assert not (Path(broken.output) / "only/model").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    built = recipe(tmp_path, {"checkpoint": {"every": 2}})
    honest, calls = Accelerator.save_state, [0]

    def full(self: Accelerator, output_dir: str, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            (Path(output_dir) / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(self, output_dir, *args, **kwargs)

    monkeypatch.setattr(Accelerator, "save_state", full)
    with pytest.raises(OSError, match="No space left on device"):
        run_recipe(built)
    checkpoints = Path(built.output) / "only/checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000004"]
    monkeypatch.undo()
    run_recipe(built)
    undisturbed = replace(built, output=str(tmp_path / "undisturbed"))
    run_recipe(undisturbed)
    assert equal(weights(built), weights(undisturbed))


def test_a_file_that_cannot_grow_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    """The system refuses the write itself, inside whatever library makes it."""
    resource = pytest.importorskip("resource", reason="limits of files are POSIX")
    built = recipe(tmp_path, {"checkpoint": {"every": 2}})
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_step(name: str, step: Step) -> None:
        if step.number == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, usual[1]))

    try:
        with pytest.raises(OSError, match="the checkpoint could not be written"):
            run_recipe(built, on_step=on_step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    checkpoints = Path(built.output) / "only/checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]
    run_recipe(built)
    undisturbed = replace(built, output=str(tmp_path / "undisturbed"))
    run_recipe(undisturbed)
    assert equal(weights(built), weights(undisturbed))


def test_the_best_model_is_kept(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held_out.jsonl", 12, seed=5)
    stage = {
        "evaluation": {
            "sets": [{"kind": "retrieval", "source": {"path": str(held_out)}}],
            "every": 2,
            "best": "held_out/ndcg@10",
        },
        "schedule": {"steps": 8, "lr": 3e-3},
    }
    built = recipe(tmp_path, stage)
    outcome = run_recipe(built)["only"]
    lines = (Path(built.output) / "only/metrics.jsonl").read_text().splitlines()
    found = {
        values["step"]: values["held_out/ndcg@10"]
        for values in map(json.loads, lines)
        if "held_out/ndcg@10" in values
    }
    assert sorted(found) == [2, 4, 6, 8]
    assert outcome.metrics["held_out/ndcg@10"] == max(found.values())
    assert found[int(outcome.metrics["step"])] == max(found.values())
    card = (outcome.model / "README.md").read_text()  # type: ignore[operator]
    assert "| held_out/ndcg@10 |" in card
    assert "| rows | 26 | not stated |" in card


def test_the_rate_falls_with_the_root_of_the_steps(tmp_path: Path) -> None:
    schedule = {"steps": 8, "lr": 1e-3, "warmup": 2, "decay": "inverse_sqrt"}
    built = recipe(tmp_path, {"schedule": schedule})
    run_recipe(built)
    lines = (Path(built.output) / "only/metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    later = [1e-3 * (2 / step) ** 0.5 for step in range(2, 8)]
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, *later])


def test_training_teaches(tmp_path: Path) -> None:
    stage = {"schedule": {"steps": 60, "lr": 3e-3}, "batch": {"size": 16}}
    losses: list[float] = []

    def on_step(name: str, step: Step) -> None:
        assert (name, step.total) == ("only", 60)
        losses.append(step.loss)

    run_recipe(recipe(tmp_path, stage, rows=64), on_step=on_step)
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run_recipe(recipe(tmp_path, {}))
    with pytest.raises(ConfigError, match=r"another recipe: 'steps: 10' there.*choose another"):
        run_recipe(recipe(tmp_path, {"schedule": {"steps": 11, "lr": 1e-3, "warmup": 0.2}}))


def test_other_data_than_the_run_began_with_is_refused(tmp_path: Path) -> None:
    built = recipe(tmp_path, {})
    run_recipe(built, stop_after=3)
    run_recipe(built, stop_after=4)
    file = tmp_path / "rows.jsonl"
    first, *others = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*others, first]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the data of rows changed since this run began"):
        run_recipe(built)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)
def test_running_out_of_memory_names_what_to_lower(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Stepper, "backward", fail)
    with pytest.raises(TrainingError, match=r"step 1: out of memory on a batch of.*chunk_rows"):
        run_recipe(recipe(tmp_path, {}))


def test_other_errors_of_a_step_are_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Stepper, "backward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_recipe(recipe(tmp_path, {}))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    built = recipe(tmp_path, {})
    run_recipe(built, stop_after=3)
    checkpoint = Path(built.output) / "only/checkpoints/step-00000003"
    (checkpoint / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"step-00000003: cannot be resumed from"):
        run_recipe(built)


def test_errors_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows, fewer than one batch"):
        run_recipe(recipe(tmp_path / "short", {"batch": {"size": 64}}))
    with pytest.raises(ConfigError, match="nothing learns"):
        run_recipe(recipe(tmp_path / "frozen", {"encoder": {"train": "none"}}))
    folder = tmp_path / "one_sided"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "c"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:2"):
        run_recipe(recipe(folder, {}))


def test_what_objectives_learn_does_not_decay(tmp_path: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_model("bert", tmp_path / "bert"))
    learned = learned_parameters(SCD(projector=5), encoder.dim)
    task = torch.nn.Linear(2, 2)
    schedule = ScheduleConfig(steps=1, lr=1e-3, weight_decay=0.5)
    groups = parameter_groups(encoder, [task], [learned], schedule)
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    assert any(p.ndim > 1 for p in learned.values())
    assert {decays[id(p)] for p in learned.values()} == {0.0}
    assert decays[id(task.weight)] == 0.5
    assert decays[id(task.bias)] == 0.0
    assert all(decays[id(p)] == (0.5 if p.ndim > 1 else 0.0) for p in encoder.parameters())


def test_biases_alone(tmp_path: Path) -> None:
    outcome = run_recipe(recipe(tmp_path, {"encoder": {"train": "biases"}}))["only"]
    before = TextEncoder.from_pretrained(tmp_path / "bert").state_dict()
    after = TextEncoder.from_pretrained(outcome.model or "").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("bias") for name in changed)


def test_positives_are_read_under_their_own_dropout(tmp_path: Path) -> None:
    """Two views of one text: alike without dropout, and different where positives have some."""
    losses: dict[str, list[float]] = {}
    for name, batch in {"plain": {"size": 4}, "cached": {"size": 4, "chunk_rows": 2}}.items():
        for rate in (0.0, 0.3):
            stage = {
                "source": {"positive": "query", "label": "score"},
                "objective": {"name": "cosine"},
                "batch": batch,
                "schedule": {"steps": 2, "lr": 1e-9},
                "encoder": {"dropout": 0.0, "positive_dropout": rate},
            }
            folder = tmp_path / f"{name}{rate}"
            rows = [{"query": f"text {i}", "score": 1.0} for i in range(8)]
            folder.mkdir()
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            run_recipe(
                recipe(folder, stage),
                on_step=lambda _, step, key=f"{name}{rate}": losses.setdefault(key, []).append(
                    step.loss
                ),
            )
    for name in ("plain", "cached"):
        assert losses[f"{name}0.0"] == pytest.approx([0.0, 0.0], abs=1e-10)
        assert min(losses[f"{name}0.3"]) > 1e-4
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(2, 2))
    with dropout_at(model, 0.5):
        assert model[0].p == 0.5
    assert model[0].p == 0.2
    set_dropout(model, 0.1)
    assert model[0].p == 0.1
    both = {"encoder": {"positive_dropout": 0.1, "gradient_checkpointing": True}}
    refused = recipe(tmp_path / "both", both)
    with pytest.raises(ConfigError, match="no positive_dropout"):
        run_recipe(refused)

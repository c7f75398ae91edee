"""The training loop, on accelerate: one process or many, any precision, exact resume.

What is exact: a run that was stopped and resumed ends with the same weights, bit by bit on one CPU,
as the run that was not. Batches are a pure function of the step, and a checkpoint holds all else:
weights, optimiser, learning rate, random states, the momentum encoder and its queue, the best
metric so far.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmembed.errors import ConfigError, TrainingError
from mmembed.gpte.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from mmembed.gpte.data.batches import Batches, ExampleBatch
from mmembed.gpte.objectives import build_objective, learned_parameters
from mmembed.gpte.protocols import TrainableEncoder
from mmembed.gpte.recipe import TrainStage
from mmembed.gpte.starting import parameter_groups
from mmembed.gpte.stepping import Follower, Goal, Stepper, Trainee
from mmembed.gpte.token_tasks import TokenTask
from mmembed.gpte.wrapping import Wrapped, descend, prepare, sharded, whole_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Step", "Trainer", "goal_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What is known after an optimiser step.

    Attributes:
        number: steps done, from 1.
        total: steps of the whole stage.
        loss: mean over the step's batches and all processes.
        values: the loss's parts before weighting, learning rate, gradient norm and speed.
    """

    number: int
    total: int
    loss: float
    values: Mapping[str, float]


@dataclass
class _Progress:
    """The part of a run's state that is neither a tensor nor a random state."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.__dict__)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)


class Trainer:
    """Trains one encoder through one stage.

    Args:
        stage: its data have become ``batches`` already.
        encoder: on the CPU or the accelerator's device; trained in place.
        folder: ``checkpoints``, ``models``, ``best`` and ``metrics.jsonl`` are kept there.
        tasks: token tasks by name.
        evaluate: metrics of the encoder by name.
        on_step: called on the main process after every step.
        rates: of the encoder's dropout, by column, where a column has its own.

    Raises:
        ConfigError: nothing learns, or the objective does not fit.
    """

    def __init__(
        self,
        stage: TrainStage,
        encoder: TrainableEncoder,
        batches: Batches,
        folder: Path,
        accelerator: Accelerator,
        *,
        seed: int = 0,
        tasks: Mapping[str, TokenTask] | None = None,
        evaluate: Callable[[Any], dict[str, float]] | None = None,
        on_step: Callable[[Step], None] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.stage, self.batches, self.folder = stage, batches, folder
        self.accelerator = accelerator
        self.evaluate, self.on_step = evaluate, on_step
        self.progress = _Progress()
        accumulate = stage.batch.accumulate
        self.total = stage.schedule.steps or math.ceil(
            batches.steps(stage.schedule.epochs) / accumulate
        )
        device = accelerator.device
        goals = {name: goal_of(config, encoder) for name, config in _objectives(stage).items()}
        self.learned = {f"objective{name}": goal.learned.to(device) for name, goal in goals.items()}
        follower = None
        if stage.momentum is not None:
            follower = Follower(copy.deepcopy(encoder), stage.momentum, encoder.dim).to(device)
        trainee = Trainee(encoder, tasks or {}, self.learned)
        optimizer = torch.optim.AdamW(
            parameter_groups(
                encoder, trainee.tasks.values(), self.learned.values(), stage.schedule
            ),
            betas=stage.schedule.betas,
            eps=stage.schedule.eps,
            fused=device.type in ("cpu", "cuda"),
        )
        self.model, self.optimizer = prepare(
            accelerator, trainee, optimizer, trainee.learned, stage.schedule.clip
        )
        self.encoder = encoder
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        kept = (self.scheduler, self.progress, *([follower] if follower else []))
        accelerator.register_for_checkpointing(*kept)
        self.stepper = Stepper(
            accelerator,
            self.model,
            encoder,
            goals,
            dict(tasks or {}),
            stage.batch,
            follower,
            seed,
            states=any(_reads_states(goal.objective) for goal in goals.values()),
            verify=stage.verify_cache,
            rates=rates or {},
            context=getattr(encoder, "context", None),
        )

    def run(self, stop_after: int | None = None) -> bool:
        """Train to the end from the newest checkpoint, if there is one.

        Args:
            stop_after: write a checkpoint and return once so many steps are done in all.

        Returns:
            Whether the stage is finished.

        Raises:
            TrainingError: the loss is not finite, or memory ran out. Checkpoints stay as they are.
            InputError: a row is broken, a worker died, or a checkpoint does not fit.
            OSError: a checkpoint cannot be written; earlier ones stay whole.
        """
        stage, progress = self.stage, self.progress
        checkpoints = self.folder / "checkpoints"
        found = latest_checkpoint(checkpoints)
        if found is not None:
            load_checkpoint(self.accelerator, found)
            _log.info("stage %s goes on after step %d", stage.name, progress.step)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            _forget_later(self.folder / "metrics.jsonl", progress.step)
        end = min(self.total, stop_after or self.total)
        stream = self.batches.start_at(progress.step * stage.batch.accumulate)
        self.model.train()
        while progress.step < end:
            step = self._step(stream)
            progress.step += 1
            if self._due(stage.evaluation.every if stage.evaluation else 0):
                self._measure()
            if progress.step % stage.log_every == 0 or progress.step == self.total:
                self._record(step)
            if self.on_step is not None and self.accelerator.is_main_process:
                self.on_step(step)
            if self._due(stage.checkpoint.every) or progress.step == end < self.total:
                save_checkpoint(self.accelerator, checkpoints, progress.step, stage.checkpoint.keep)
                if stage.checkpoint.models:
                    self.save_model(self.folder / "models" / f"step-{progress.step:08d}")
        if progress.step < self.total:
            return False
        self._measure()
        return True

    def save_model(self, folder: Path) -> None:
        """Write the encoder as it is now; a collective call."""
        self.accelerator.wait_for_everyone()
        with whole_weights(self.accelerator, self.model, self.encoder, "encoder"):
            if self.accelerator.is_main_process:
                self.encoder.save_pretrained(folder)
        self.accelerator.wait_for_everyone()

    def _step(self, stream: Iterator[ExampleBatch]) -> Step:
        stage, accumulate = self.stage, self.stage.batch.accumulate
        started = time.perf_counter()
        parts: dict[str, torch.Tensor] = {}
        rows = tokens = 0
        places: list[str] = []
        for i in range(accumulate):
            batch = next(stream)
            number = self.progress.step * accumulate + i
            last = i == accumulate - 1
            try:
                loss = self.stepper.backward(batch, number, 1.0 / accumulate, last)
            except (MemoryError, RuntimeError) as error:
                if not _no_memory(error):
                    raise
                raise TrainingError(self._too_large(batch)) from error
            for name, part in {"loss": loss.total, **loss.parts}.items():
                parts[name] = parts.get(name, 0.0) + part.detach().float() / accumulate
            rows, tokens = rows + len(batch.query), tokens + batch.tokens
            places += batch.places
        names = sorted(parts)
        device = self.accelerator.device
        counts = torch.tensor([rows, tokens], dtype=torch.float32, device=device)
        means = self.accelerator.reduce(torch.stack([parts[n].to(device) for n in names]), "mean")
        counts = self.accelerator.reduce(counts, "sum")
        values = dict(zip(names, means.tolist(), strict=True))
        loss_value = values.pop("loss")
        if not math.isfinite(loss_value):
            raise TrainingError(self._broken(loss_value, values, places))
        own = [p for module in self.learned.values() for p in module.parameters()]
        clip = stage.schedule.clip
        values["grad_norm"] = descend(self.accelerator, self.model, self.optimizer, own, clip)
        values["lr"] = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.stepper.after_step()
        seconds = time.perf_counter() - started
        values["rows_per_second"] = float(counts[0]) / seconds
        values["tokens_per_second"] = float(counts[1]) / seconds
        return Step(self.progress.step + 1, self.total, loss_value, values)

    def _rate(self, step: int) -> float:
        """The learning rate's share of its highest, for the step that comes next."""
        schedule = self.stage.schedule
        warmup = schedule.warmup if schedule.warmup >= 1 else schedule.warmup * self.total
        if step < warmup:
            return (step + 1) / (math.floor(warmup) + 1)
        left = max(0.0, (self.total - step) / max(1.0, self.total - warmup))
        shape = {
            "constant": 1.0,
            "linear": left,
            "cosine": 0.5 - 0.5 * math.cos(math.pi * left),
            "inverse_sqrt": (max(1.0, warmup) / max(1.0, warmup, step)) ** 0.5,
        }
        return schedule.final + (1.0 - schedule.final) * shape[schedule.decay]

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.step % every == 0

    def _measure(self) -> None:
        """Evaluate unless this step has been, and keep the model if it is the best."""
        progress, config = self.progress, self.stage.evaluation
        if self.evaluate is None or config is None or progress.metrics.get("step") == progress.step:
            return
        through = Wrapped(self.encoder, self.model) if sharded(self.accelerator) else self.encoder
        found = self.evaluate(through)
        self.model.train()
        progress.metrics = {"step": progress.step, **found}
        if config.best and found[config.best] > progress.best:
            progress.best, progress.best_step = found[config.best], progress.step
            progress.best_metrics = dict(found)
            self.save_model(self.folder / "best")
        _log.info("stage %s, step %d: %s", self.stage.name, progress.step, found)
        self._append({"step": progress.step, **found})
        self.accelerator.log(found, step=progress.step)

    def _record(self, step: Step) -> None:
        epoch = self.batches.epoch_of(step.number * self.stage.batch.accumulate)
        values = {"loss": step.loss, **step.values}
        if math.isfinite(epoch):
            values["epoch"] = epoch
        self._append({"step": step.number, **values})
        self.accelerator.log(values, step=step.number)

    def _append(self, values: Mapping[str, float]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")

    def _broken(self, loss: float, parts: Mapping[str, float], places: list[str]) -> str:
        told = ", ".join(f"{name} {value:.4g}" for name, value in parts.items())
        rows = ", ".join(places[:4]) + (", ..." if len(places) > 4 else "")
        return (
            f"stage {self.stage.name}, step {self.progress.step + 1}: the loss is {loss} ({told}) "
            f"on the rows {rows}. The model was not changed by this step, and checkpoints stay as "
            "they are; try a lower learning rate, bf16 in place of fp16, or look at these rows"
        )

    def _too_large(self, batch: ExampleBatch) -> str:
        return (
            f"stage {self.stage.name}, step {self.progress.step + 1}: out of memory on a batch of "
            f"{len(batch.query)} queries and {batch.tokens} tokens. Checkpoints stay as they are; "
            "encode less at a time by batch.chunk_rows or batch.chunk_tokens, which change no "
            "gradient, set encoder.gradient_checkpointing: true, or lower batch.size"
        )


def _no_memory(error: Exception) -> bool:
    """Whether memory ran out; on the CPU torch has no error of its own for that."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)


def _objectives(stage: TrainStage) -> dict[int, Any]:
    """Objectives by number of their source; -1 for those without one of their own."""
    found: dict[int, Any] = {}
    if stage.objective is not None:
        found[-1] = stage.objective
    for number, source in enumerate(stage.data.sources):
        if source.objective is not None:
            found[number] = source.objective
    return found


def goal_of(config: Any, encoder: TrainableEncoder) -> Goal:
    """The objective, and what it learns at its start values.

    Raises:
        ConfigError: the config is wrong, or asks for a scale that the model's weights do not bring.
    """
    objective = build_objective(config)
    learned = learned_parameters(objective, encoder.dim)
    if getattr(objective, "own_scale", False):
        for name in learned:
            if name not in encoder.scale:
                raise ConfigError(
                    f"objective: the model's weights bring no {name}: leave out own_scale, and set "
                    "the start values"
                )
            learned[name].data.copy_(encoder.scale[name].detach().reshape(()))
    return Goal(objective, learned)


def _reads_states(objective: Any) -> bool:
    """Whether an objective, or one inside it, asks for token states."""
    if getattr(objective, "reads_states", False):
        return True
    values = [getattr(objective, part.name) for part in fields(objective)]
    parts = [part for v in values for part in (v if isinstance(v, (list, tuple)) else [v])]
    return any(_reads_states(part) for part in parts if is_dataclass(part))


def _forget_later(file: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again."""
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(file)

"""Recipes from start to end: every stage in order, each from where it was left."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmembed.errors import ConfigError
from mmembed.gpte.calibrating import run_calibrate
from mmembed.gpte.merging import run_merge
from mmembed.gpte.mining import run_mine
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import (
    CalibrateStage,
    MergeStage,
    MineStage,
    Recipe,
    Stage,
    TrainStage,
    to_yaml,
)
from mmembed.gpte.tiny import tiny_recipe
from mmembed.gpte.trainer import Step
from mmembed.gpte.training import run_train

__all__ = ["Runner", "run_recipe"]

_log = logging.getLogger(__name__)
Runner = Callable[[Any, Context], Outcome | None]
_RUNNERS: Mapping[type, Runner] = {
    TrainStage: run_train,
    MineStage: run_mine,
    MergeStage: run_merge,
    CalibrateStage: run_calibrate,
}


def run_recipe(
    recipe: Recipe,
    *,
    on_step: Callable[[str, Step], None] | None = None,
    stop_after: int | None = None,
    more: Mapping[type, Runner] | None = None,
) -> dict[str, Outcome]:
    """Run the stages that are not finished, in order.

    Every stage has a folder in ``recipe.output``; training goes on from its newest checkpoint. The
    same call after an interruption, however it came about, ends with the same models.

    Args:
        on_step: called with the stage's name after every training step.
        stop_after: stop the first training stage that reaches so many steps, with a checkpoint.
        more: what runs kinds of stages beside those of :mod:`mmembed.gpte.recipe`.

    Returns:
        Outcomes by stage; those after an early stop are missing.

    Raises:
        ConfigError: the recipe is wrong, or the folder holds a run of another recipe.
        InputError, ModelLoadError, TrainingError, OSError: what a stage raises; finished stages
            and checkpoints stay.
    """
    output = Path(recipe.output or Path("runs") / recipe.name)
    if recipe.size == "tiny":
        recipe = tiny_recipe(recipe, output / ".tiny")
    runners = {**_RUNNERS, **(more or {})}
    outcomes: dict[str, Outcome] = {}
    for stage in recipe.stages:
        folder = output / stage.name
        found = _finished(folder, stage)
        if found is None:
            tell = None
            if on_step is not None:
                tell = _named(on_step, stage.name)
            context = Context(recipe, folder, dict(outcomes), tell, stop_after)
            _log.info("stage %s", stage.name)
            found = runners[type(stage)](stage, context)
            if found is None:
                return outcomes
            _finish(folder, found)
        outcomes[stage.name] = found
    return outcomes


def _named(on_step: Callable[[str, Step], None], name: str) -> Callable[[Step], None]:
    return lambda step: on_step(name, step)


def _finished(folder: Path, stage: Stage) -> Outcome | None:
    """What an earlier call made of the stage; and a note of what the folder is for, otherwise."""
    note, result = folder / "stage.yaml", folder / "result.json"
    wanted = to_yaml(stage)
    if note.exists() and note.read_text(encoding="utf-8") != wanted:
        raise ConfigError(
            f"{folder} holds a run of another recipe: {_difference(note, wanted)}; choose another "
            "output, or delete the folder"
        )
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(note, wanted)
        return None
    values = json.loads(result.read_text(encoding="utf-8"))
    paths = {key: folder / values[key] if values[key] else None for key in ("model", "rows")}
    return Outcome(folder, paths["model"], paths["rows"], values["metrics"], values["start"])


def _difference(note: Path, wanted: str) -> str:
    ours = wanted.splitlines()
    theirs = note.read_text(encoding="utf-8").splitlines()
    for there, here in zip(theirs, ours, strict=False):
        if there != here:
            return f"{there.strip()!r} there, and {here.strip()!r} here"
    return "one has more lines"


def _finish(folder: Path, outcome: Outcome) -> None:
    values = {
        "model": outcome.model.name if outcome.model else None,
        "rows": outcome.rows.name if outcome.rows else None,
        "metrics": dict(outcome.metrics),
        "start": dict(outcome.start),
    }
    _write(folder / "result.json", json.dumps(values, indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    """In one piece: every process of a run writes the same, and none may read half of it."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)

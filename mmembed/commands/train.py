"""``mmembed train``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed.commands.output import EXIT_OK, Output
from mmembed.gpte.recipe import load_recipe, to_yaml
from mmembed.gpte.run import run_recipe
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmembed.gpte.trainer import Step

__all__ = ["train_recipe"]


def train_recipe(
    path: Path, overrides: list[str], stop_after: int | None, show: bool, output: Output
) -> int:
    """Run a recipe, or print it with all defaults filled in."""
    recipe = load_recipe(path, overrides, MEDIA_STAGES)
    if show:
        output.result({"recipe": to_yaml(recipe)}, to_yaml(recipe).rstrip())
        return EXIT_OK
    with _bars(output) as on_step:
        outcomes = run_recipe(
            recipe,
            on_step=on_step,
            stop_after=stop_after,
            more=MEDIA_RUNNERS,
        )
    for name, outcome in outcomes.items():
        made = outcome.model or outcome.rows
        metrics = {key: round(value, 4) for key, value in outcome.metrics.items()}
        told = "  ".join(f"{key} {value}" for key, value in metrics.items())
        record = {"stage": name, "output": str(made), "metrics": metrics}
        output.result(record, f"{name}: {made}" + (f"  {told}" if told else ""))
    if len(outcomes) < len(recipe.stages):
        output.say("stopped early; the same command goes on")
    return EXIT_OK


@contextmanager
def _bars(output: Output) -> Iterator[Callable[[str, Step], None] | None]:
    """A progress bar a stage, with its loss, and the library's messages, on standard error."""
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    if output.quiet:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    told = TextColumn("{task.fields[told]}")
    bars = Progress(
        *columns,
        TimeRemainingColumn(),
        told,
        console=Console(stderr=True),
        disable=not output.show_progress,
    )
    handler = RichHandler(console=bars.console, show_path=False, show_level=False)
    logger = logging.getLogger("mmembed")
    level = logger.level
    stages: dict[str, TaskID] = {}

    def on_step(name: str, step: Step) -> None:
        if name not in stages:
            stages[name] = bars.add_task(name, total=step.total, told="")
        bars.update(stages[name], completed=step.number, told=f"loss {step.loss:.4f}")

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with bars:
            yield on_step
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

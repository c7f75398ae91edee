"""The ``codeembed train`` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mmembed.commands.output import EXIT_OK, Output

if TYPE_CHECKING:
    from mmembed.gpte.trainer import Step

__all__ = ["train"]

_EVERY = 10


def train(
    recipe: Path,
    overrides: list[str] | None = None,
    /,
    *,
    stop_after: int | None = None,
    show: bool = False,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> int:
    """Train a code model by a recipe, as `mmembed train`, with stages that know code.

    For example:

        codeembed train configs/recipes/code/concord.yaml size=tiny output=/tmp/try

    Args:
        recipe: A YAML file of stages; see configs/recipes/code.
        overrides: KEY=VALUE pairs; parts of keys are joined by dots.
        stop_after: Stop with a checkpoint after so many steps of a stage.
        show: Print the recipe with every default filled in, and train nothing.
        json: JSON lines.
        quiet: No messages and no progress.
    """
    from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES
    from mmembed.gpte.recipe import load_recipe, to_yaml
    from mmembed.gpte.run import run_recipe

    output = Output(json=json, quiet=quiet)
    loaded = load_recipe(recipe, overrides or [], CODE_STAGES)
    if show:
        output.result({"recipe": to_yaml(loaded)}, to_yaml(loaded).rstrip())
        return EXIT_OK

    def tell(stage: str, step: Step) -> None:
        if step.number % _EVERY == 0 or step.number == step.total:
            output.say(f"{stage}: step {step.number} of {step.total}, loss {step.loss:.4f}")

    outcomes = run_recipe(loaded, on_step=tell, stop_after=stop_after, more=CODE_RUNNERS)
    for name, outcome in outcomes.items():
        made = outcome.model or outcome.rows
        metrics = {key: round(value, 4) for key, value in outcome.metrics.items()}
        told = "  ".join(f"{key} {value}" for key, value in metrics.items())
        record = {"stage": name, "output": str(made), "metrics": metrics}
        output.result(record, f"{name}: {made}  {told}".rstrip())
    if len(outcomes) < len(loaded.stages):
        output.say("stopped early; the same command goes on")
    return EXIT_OK

"""The ``codeembed train`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mmembed.commands.output import Output

__all__ = ["train"]


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
    from mmembed.commands.train import train_recipe
    from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

    return train_recipe(
        recipe,
        overrides or [],
        stop_after,
        show,
        Output(json=json, quiet=quiet),
        stages=(*MEDIA_STAGES, *CODE_STAGES),
        runners={**MEDIA_RUNNERS, **CODE_RUNNERS},
    )

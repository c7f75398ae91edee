"""Every code recipe runs from its file, on tiny random models of its architectures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES
from mmembed.gpte.recipe import TrainStage, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.trainer import Step

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "configs" / "recipes" / "code").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_code_recipe_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(file, ["size=tiny", f"output={tmp_path}"], CODE_STAGES)
    assert len(recipe.about) > 20
    found: dict[str, list[Step]] = {}

    def on_step(stage: str, step: Step) -> None:
        found.setdefault(stage, []).append(step)

    outcomes = run_recipe(recipe, on_step=on_step, more=CODE_RUNNERS)
    assert list(outcomes) == [stage.name for stage in recipe.stages]
    trained = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    assert list(found) == [stage.name for stage in trained]
    for stage in trained:
        assert all(math.isfinite(step.loss) for step in found[stage.name])
        for head in getattr(stage, "heads", ()):
            assert found[stage.name][0].values[head.label] > 0

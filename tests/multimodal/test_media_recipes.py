"""Every multimodal recipe runs from its file, on tiny random models of its architectures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mmembed import Embedder
from mmembed.gpte.recipe import TrainStage, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.trainer import Step
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "recipes" / "multimodal").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their data from the root of the checkout."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_runs(file: Path, tmp_path: Path) -> None:
    if file.stem == "coca":
        pytest.importorskip("open_clip", reason="open_clip is not installed")
    recipe = load_recipe(file, ["size=tiny", f"output={tmp_path}"], MEDIA_STAGES)
    losses: dict[str, list[float]] = {}

    def on_step(stage: str, step: Step) -> None:
        losses.setdefault(stage, []).append(step.loss)

    outcomes = run_recipe(recipe, on_step=on_step, more=MEDIA_RUNNERS)
    assert list(outcomes) == [stage.name for stage in recipe.stages]
    trained = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    assert list(losses) == [stage.name for stage in trained]
    assert all(len(found) == 2 and all(map(math.isfinite, found)) for found in losses.values())
    for stage in trained:
        measured = {key for key in outcomes[stage.name].metrics if "/" in key}
        assert measured == set(outcomes[stage.name].start)
        assert bool(measured) == (stage.evaluation is not None)
    last = [outcome.model for outcome in outcomes.values() if outcome.model is not None][-1]
    model = Embedder.from_pretrained(last)
    vectors = model.encode(["a map", {"image": "data/samples/figures/00191c8e7e87.jpg"}])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 0

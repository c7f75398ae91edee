"""Real runs of multimodal recipes: what is run of each, and the page of the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import coca_gains
import media_gains
from machine import RESULTS
from media_recipes import ASKED, Setting, at_size, plain
from media_tables import page, read, rows_of, verdict
from small_vlm import CHANNELS, SIDES, small_models, start_folder

from mmembed import Embedder
from mmembed.gpte.recipe import TrainStage, load_recipe, recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

FILES = sorted(media_gains.RECIPES.glob("*.yaml"))


def setting(folder: Path) -> Setting:
    return Setting(folder / "start", folder, 4, 4, 1e-3, seed=3)


def names(objective: Any) -> list[str]:
    """All names within an objective: of its parts, masks and weights."""
    if isinstance(objective, dict):
        own = [str(objective["name"])] if "name" in objective else []
        return own + [name for value in objective.values() for name in names(value)]
    found = objective if isinstance(objective, (list, tuple)) else []
    return [name for one in found for name in names(one)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_small_run_keeps_the_recipe(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file, [], MEDIA_STAGES)
    small = at_size(recipe, setting(tmp_path), tmp_path / "run")
    assert [type(stage) for stage in small.stages] == [type(stage) for stage in recipe.stages]
    assert small.seed == 3
    for ours, theirs in zip(small.stages, recipe.stages, strict=True):
        if isinstance(ours, TrainStage) and isinstance(theirs, TrainStage):
            assert ours.batch.order == theirs.batch.order
            assert ours.batch.mixture == theirs.batch.mixture
            assert [one.weight for one in ours.data.sources] == [
                one.weight for one in theirs.data.sources
            ]
            assert names(ours.objective) == names(theirs.objective)
    base = plain(recipe, setting(tmp_path), tmp_path / "plain")
    (stage,) = base.stages
    assert isinstance(stage, TrainStage)
    assert stage.objective["name"] == "infonce"  # type: ignore[index]
    assert not any(one.path.startswith("stage://") for one in stage.data.sources)


def test_the_start_is_a_model_that_trains_and_loads_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        values = rng.standard_normal(CHANNELS).astype(np.float16)
        file = tmp_path / f"{i}.png"
        Image.fromarray(values.view(np.uint8).reshape(*SIDES, 3)).save(file)
        rows.append({"query": f"thing {i}", "positive": {"image": str(file)}})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for part in ("train", "dev", "test"):
        (tmp_path / f"T-I-{part}.jsonl").write_text(text, encoding="utf-8")
    start_folder(tmp_path / "start", [tmp_path / f"{i}.png" for i in range(6)], 0)
    source = {"path": "data/multimodal/T-I-train.jsonl"}
    stage = {
        "name": "train",
        "kind": "multimodal",
        "data": {"sources": [source]},
        "encoder": {"backbone": "any"},
        "objective": {"name": "infonce", "temperature": 0.05},
        "evaluation": {"sets": [{"source": {"path": "data/multimodal/T-I-test.jsonl"}}]},
    }
    recipe = recipe_from({"name": "small", "stages": [stage]}, MEDIA_STAGES)
    with small_models():
        found = run_recipe(at_size(recipe, setting(tmp_path), tmp_path / "run"), more=MEDIA_RUNNERS)
        before = Embedder.from_pretrained(tmp_path / "start", device="cpu")
        after = Embedder.from_pretrained(found["train"].model, device="cpu")
    item = {"image": str(tmp_path / "0.png")}
    assert np.abs(before.encode(item) - after.encode(item)).max() > 1e-3
    told = media_gains.measured(found)
    assert [step for step, _ in told["curve"]] == [0, 2, 4]
    assert told["steps"] == 4
    assert 0 <= told["start"] <= 1


def test_coca_runs_at_the_budget_of_the_others(tmp_path: Path) -> None:
    recipe = load_recipe(media_gains.RECIPES / "coca.yaml", [], MEDIA_STAGES)
    budget = {"steps": 8, "batch": 4, "lr": 1e-3}
    for one, steps in ((recipe, [4, 4]), (coca_gains.plain(recipe), [8])):
        small = coca_gains.at_size(one, tmp_path / "start", tmp_path, budget, 3, tmp_path / "run")
        stages = [stage for stage in small.stages if isinstance(stage, TrainStage)]
        assert [stage.schedule.steps for stage in stages] == steps
        assert [stage.objective for stage in stages] == [
            stage.objective for stage in one.stages if isinstance(stage, TrainStage)
        ]
        assert {stage.batch.size for stage in stages} == {4}
        assert {stage.encoder.backbone for stage in stages} == {str(tmp_path / "start")}
        assert small.seed == 3


def test_a_verdict_needs_every_seed() -> None:
    assert verdict([0.1, 0.12, 0.11]) == "wins"
    assert verdict([-0.1, -0.12, -0.11]) == "loses"
    assert verdict([0.1, 0.12, -0.01]) == "undecided"
    assert verdict([0.3, 0.001, 0.002]) == "undecided"
    assert verdict([0.1, 0.1]) == "too few seeds"


def test_the_page_is_that_of_the_results() -> None:
    results = [read("recipes_aligned"), read("recipes")]
    assert (RESULTS / "recipes.md").read_text(encoding="utf-8") == page(*results)
    assert results[0]["asked"] == ASKED
    for result in results:
        known = set(result["plain"])
        assert known == {file.stem for file in FILES}
        assert {row["name"] for row in rows_of(result)} <= known

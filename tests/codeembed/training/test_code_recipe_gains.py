"""Short runs of code recipes: what they are cut to, and the table that the documentation shows."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from code_gains_table import PAGE, RECIPES, matched, missing, runs_of, table, written
from code_recipe_gains import BATCH, DATA, code_stage, held_out
from small_recipes import Start, at_size

from codeembed.training.judging import ScoreStage
from codeembed.training.matched import MatchedStage
from codeembed.training.stages import CODE_STAGES, FilterStage, ViewStage
from mmembed.gpte.recipe import TrainStage, load_recipe

ROOT = Path(__file__).parents[3]
FILES = sorted(RECIPES.glob("*.yaml"))
START = Start("s", {"": "BODY"}, "", "TEACHER", DATA, 128, 40, BATCH, 96, 2e-3, 3e-3)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_is_cut_to_size_and_keeps_its_stages(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file, [], CODE_STAGES)
    small = at_size(recipe, START, tmp_path, code_stage)
    assert [type(stage) for stage in small.stages] == [type(stage) for stage in recipe.stages]
    assert [stage.name for stage in small.stages] == [stage.name for stage in recipe.stages]
    learning = sum(isinstance(stage, TrainStage) for stage in recipe.stages)
    steps = 40 if learning == 1 else 60 // learning  # several share half as many again
    for old, new in zip(recipe.stages, small.stages, strict=True):
        if isinstance(new, TrainStage):
            assert new.encoder.backbone == "BODY"
            assert new.schedule.steps == steps
            assert new.batch.size <= BATCH
            assert getattr(new, "heads", ()) == getattr(old, "heads", ())
        elif isinstance(new, FilterStage | MatchedStage):
            assert new.model == "TEACHER"
        elif isinstance(new, ViewStage):
            assert new.columns == old.columns
    for stage in small.stages:
        paths = [stage.source] if isinstance(stage, ViewStage | ScoreStage) else [
            source.path for source in stage.data.sources  # type: ignore[union-attr]
        ]  # fmt: skip
        for path in paths:
            assert path.startswith("stage://") or (ROOT / path).name.endswith("-train.jsonl.gz")


def test_modules_that_are_measured_were_not_trained_on() -> None:
    modules: dict[str, set[str]] = {"train": set(), "test": set()}
    for part, found in modules.items():
        for file in (ROOT / DATA).glob(f"*-{part}.jsonl.gz"):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                found.update(json.loads(line)["repository"] for line in lines)
    assert modules["train"]
    assert modules["test"]
    assert not modules["train"] & modules["test"]
    assert all("-test." in one.source.path for one in held_out("test"))
    assert all("-dev." in one.source.path for one in held_out("dev"))


def test_the_documentation_shows_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, runs_of()) == page
    assert {run["recipe"] for run in runs_of()} <= {file.stem for file in FILES}


def test_a_table_tells_gains_from_losses() -> None:
    def run(recipe: str, gain: float) -> dict[str, object]:
        interval = [gain - 0.1, gain + 0.1]
        one = {"rows": 9, "before": 0.5, "after": 0.5 + gain, "interval": interval}
        sets = {"docstring/ndcg@10": one}
        what = {"recipe": recipe, "start": "words", "seeds": [42, 43]}
        return {**what, "sets": sets, "gain": gain, "interval": interval}

    lines = table([run("a", 0.2), run("b", -0.2), run("c", 0.05)]).splitlines()
    assert lines[0].startswith("| recipe | start | seeds | docstring | mean gain")
    assert [line.split("|")[-2].strip() for line in lines[2:]] == [
        "yes",
        "no: it loses",
        "undecided",
    ]
    assert "| 0.500 to 0.700 (+0.100 to +0.300) |" in lines[2]
    head = {"the best 8": {"before": 0.1, "after": 0.25, "interval": [0.1, 0.2]}}
    assert "reranks the best 8: 0.100 to 0.250 (+0.100 to +0.200)" in matched(
        [{"recipe": "a", "start": "words", "matching": {"sets": head}}, {"recipe": "b"}]
    )
    assert missing([{"recipe": file.stem} for file in FILES]) == ""
    assert missing([{"recipe": file.stem} for file in FILES[1:]]).endswith(f": {FILES[0].stem}.\n")

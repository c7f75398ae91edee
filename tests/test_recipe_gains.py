"""The recipes' gains: what is measured on what, and the table that the documentation shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from gains_table import (
    BEGIN,
    DECODERS,
    DOCS,
    EARLIER,
    END,
    FAMILIES,
    earlier,
    family_of,
    runs_of,
    summary,
    table,
    written,
)
from marked import between
from small_recipes import Start, at_size, held_out, leaves

from mmembed.gpte.config import DataConfig, SourceConfig
from mmembed.gpte.recipe import MineStage, TrainStage, load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "configs" / "recipes" / "text"
FILES = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_is_measured_on_test_splits_alone(file: Path) -> None:
    recipe = load_recipe(file)
    found = held_out(recipe)
    assert set(found) <= set(leaves(recipe))
    sets = [one for some in found.values() for one in some]
    assert sets
    assert len({(one.source.name, one.kind) for one in sets}) == len(sets)
    for one in sets:
        assert "-test." in one.source.path
        assert (ROOT / one.source.path).is_file()
        assert not one.source.negatives


def test_branches_are_measured_each_on_its_own_task() -> None:
    found = held_out(load_recipe(RECIPES / "jina-v3.yaml"))
    named = {leaf: sorted(one.source.path for one in sets) for leaf, sets in found.items()}
    assert named["retrieval"] == ["data/text/terms-test.jsonl.gz"]
    assert "data/text/related-test.jsonl.gz" in named["similarity"]


def test_heads_are_measured_by_what_they_give() -> None:
    (sets,) = held_out(load_recipe(RECIPES / "bge-m3.yaml")).values()
    terms = {one.score for one in sets if "terms" in one.source.path}
    assert terms == {"cosine", "sparse", "maxsim"}
    (sets,) = held_out(load_recipe(RECIPES / "splade.yaml")).values()
    assert {one.score for one in sets} == {"sparse"}


def test_the_small_form_keeps_the_stages_and_asks_for_no_hub(tmp_path: Path) -> None:
    start = Start("words", {"": "BODY"}, "MASKED", "MINILM", tmp_path, 128, 9, 32, 32, 1e-3, 1e-3)
    for file in FILES:
        recipe = load_recipe(file)
        small = at_size(recipe, start, tmp_path)
        assert [type(stage) for stage in small.stages] == [type(s) for s in recipe.stages]
        for stage in small.stages:
            for source in getattr(stage, "data", DataConfig((SourceConfig("a://b"),))).sources:
                assert "://" in source.path or Path(source.path).parent == tmp_path
            if isinstance(stage, TrainStage):
                assert stage.encoder.backbone == "BODY"
                assert stage.schedule.steps in (9, 6, 4)
                assert stage.batch.size <= 32
                assert stage.data.guide is None or stage.data.guide.model == "MINILM"
            elif isinstance(stage, MineStage):
                assert stage.reranker is None
                assert stage.model in ("previous", "MINILM") or stage.model.startswith("stage://")


def test_the_documentation_shows_the_results() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert written(page, runs_of("recipe_gains")) == page
    assert between(page, EARLIER, earlier(runs_of("recipe_gains_earlier")), DOCS) == page


def test_families_name_recipes_and_the_rest_are_decoders() -> None:
    named = [recipe for some in FAMILIES.values() for recipe in some]
    assert len(named) == len(set(named))
    assert set(named) < {file.stem for file in FILES}
    for file in FILES:
        stages = load_recipe(file).stages
        kinds = {s.encoder.family for s in stages if isinstance(s, TrainStage)}
        both_ways = {"bert", "roberta", "xlm-roberta", "distilbert", "nomic_bert", "gte"}
        both_ways |= {"t5", "mt5", "m2m_100"}
        assert (family_of(file.stem) == DECODERS) == (not kinds <= both_ways), file.stem


def test_a_table_tells_gains_from_losses() -> None:
    def run(recipe: str, gain: float) -> dict[str, object]:
        sets = {"terms by cosine/ndcg@10": {"rows": 9, "before": 0.5, "after": 0.5 + gain}}
        interval = [gain - 0.1, gain + 0.1]
        found = {"recipe": recipe, "start": "words", "sets": sets}
        return {**found, "gain": gain, "interval": interval}

    runs = [run("a", 0.2), run("b", -0.2), run("c", 0.05)]
    lines = table(runs).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["yes", "no: it loses", "undecided"]
    assert "terms (9): 0.500 to 0.700" in lines[0]
    assert summary(runs).startswith("1 of 3")
    assert "b, c" in summary(runs)
    page = f"above\n{BEGIN}old\n{END}below\n"
    assert written(page, runs).count("| decoders | a |") == 1
    with pytest.raises(SystemExit, match="recipe_gains"):
        written("no marks", runs)

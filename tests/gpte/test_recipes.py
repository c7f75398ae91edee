"""Every text recipe runs from its file, on tiny random models of its architectures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from mmembed.gpte.recipe import MergeStage, TrainStage, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.trainer import Step

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "recipes" / "text").glob("*.yaml"))
TEXTS = ["a sentence", "another one, about rivers and the ships that go there"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their data from the root of the checkout."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_runs(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file, ["size=tiny", f"output={tmp_path}"])
    losses: dict[str, list[float]] = {}

    def on_step(stage: str, step: Step) -> None:
        losses.setdefault(stage, []).append(step.loss)

    outcomes = run_recipe(recipe, on_step=on_step)
    assert list(outcomes) == [stage.name for stage in recipe.stages]
    trained = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    assert list(losses) == [stage.name for stage in trained]
    assert all(len(found) == 3 and all(map(math.isfinite, found)) for found in losses.values())
    for stage in trained:
        wanted = len(stage.evaluation.sets) if stage.evaluation else 0
        measured = {key for key in outcomes[stage.name].metrics if "/" in key}
        assert len(measured) == wanted
        assert measured == set(outcomes[stage.name].start)

    last = [outcome.model for outcome in outcomes.values() if outcome.model is not None][-1]
    encoder = TextEncoder.from_pretrained(last).eval()
    with torch.inference_mode():
        out = encoder(encoder.collate(encoder.tokenize(TEXTS, role="document")))
    heads = {"dense": out.dense, "multi": out.multi, "sparse": out.sparse}
    given = {name: vectors for name, vectors in heads.items() if vectors is not None}
    sparse = {"lexical": "sparse", "splade": "sparse"}
    assert set(given) == {sparse.get(head, head) for head in encoder.settings.heads}
    for vectors in given.values():
        assert len(vectors) == len(TEXTS)
        assert bool(vectors.isfinite().all())
        assert bool((vectors[0] != vectors[1]).any())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_says_where_it_comes_from_and_what_it_is(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# .*(19|20)\d\d|# .*model card", first), first
    recipe = load_recipe(file)
    assert recipe.size == "full"
    assert len(recipe.about) > 20
    for stage in recipe.stages:
        if isinstance(stage, MergeStage):
            continue
        sets = stage.evaluation.sets if getattr(stage, "evaluation", None) else ()
        learned = [source.path for source in stage.data.sources]
        held_out = [one.source.path for one in sets]
        for path in (*learned, *held_out):
            assert path.startswith("stage://") or (ROOT / path).is_file(), path
        assert all("-train." in path or path.startswith("stage://") for path in learned)
        assert all("-dev." in path for path in held_out)
        # Rows that a stage makes are under the licence of what it makes them of.
        for source in stage.data.sources:
            assert source.licence or source.path.startswith("stage://"), source.path

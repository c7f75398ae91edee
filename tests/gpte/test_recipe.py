from __future__ import annotations

from pathlib import Path

import pytest

from mmembed.errors import ConfigError
from mmembed.gpte.recipe import MergeStage, TrainStage, load_recipe, recipe_from, to_yaml

RECIPE = """
about: two stages and a merge
encoder:
  backbone: some/bert
  settings: {pooling: mean, prompts: {query: {template: "query: {text}"}}}
stages:
  - name: pretrain
    data:
      sources: [{path: a.jsonl}, {path: b.parquet, weight: 2}]
    objective: {name: infonce, temperature: 1e-2}
    schedule: {lr: 3e-4, steps: 10}
  - name: finetune
    encoder: {settings: {normalize: false}, lora: {rank: 4}}
    data: {sources: [{path: c.jsonl, negatives: [hard]}], negatives: 1}
    objective: infonce
  - {name: soup, kind: merge, models: ["stage://pretrain", "stage://finetune"]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "two.yaml"
    file.write_text(RECIPE)
    return file


def test_stages_are_typed_and_add_to_the_shared_encoder(path: Path) -> None:
    recipe = load_recipe(path)
    first, second, third = recipe.stages
    assert recipe.name == "two"
    assert isinstance(first, TrainStage)
    assert isinstance(second, TrainStage)
    assert isinstance(third, MergeStage)
    assert first.schedule.lr == 3e-4  # YAML 1.1 reads 3e-4 as text
    assert [source.weight for source in first.data.sources] == [1.0, 2.0]
    assert first.encoder.lora is None
    assert second.encoder.lora is not None
    assert second.encoder.lora.rank == 4
    settings = second.encoder.text_settings
    assert settings is not None
    assert settings.normalize is False
    assert settings.prompts["query"].template == "query: {text}"


def test_overrides_by_key_number_and_name(path: Path) -> None:
    overrides = [
        "seed=7",
        "stages.finetune.schedule.lr=1e-3",
        "stages.0.data.sources.1.weight=0.5",
        "stages.pretrain.objective.masks=[duplicates]",
        "encoder.train=none",
    ]
    recipe = load_recipe(path, overrides)
    first, second = recipe.stages[:2]
    assert isinstance(first, TrainStage)
    assert isinstance(second, TrainStage)
    assert recipe.seed == 7
    assert second.schedule.lr == 1e-3
    assert first.data.sources[1].weight == 0.5
    assert first.objective == {"name": "infonce", "temperature": "1e-2", "masks": ["duplicates"]}
    assert first.encoder.train == second.encoder.train == "none"


def test_the_dump_reads_back_as_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    dump = tmp_path / "dump.yaml"
    dump.write_text(to_yaml(recipe))
    assert load_recipe(dump) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.schedul.lr=1", "unknown key 'schedul'; did you mean 'schedule'"),
        ("stages.0.schedule.lerning_rate=1", r"'pretrain'.*unknown key 'lerning_rate'"),
        ("stages.0.objective.temprature=1", "did you mean 'temperature'"),
        ("encoder.settings.poolin=mean", "did you mean 'pooling'"),
        ("encoder.settings.pooling=maen", "did you mean 'mean'"),
        ("sed=1", "did you mean 'seed'"),
        ("stages.0.batch.size=0", "size is at least 1"),
        ("stages.0.batch.order=mix", "did you mean 'mixed'"),
        ("stages.0.schedule.steps=many", "give a int"),
        ("stages.0.kind=traim", "unknown kind"),
        ("stages.0.objective=null", "give an objective or a token task"),
        ("stages.warmup.seed=1", "no item 'warmup'"),
        ("stages.1.name=pretrain", "different names"),
        ("stages.0.data.sources=[]", "at least one source"),
        ("novalue", "write key.sub=value"),
    ],
)
def test_mistakes_name_the_file_and_the_key(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path, [override])
    assert "two.yaml" in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_recipe(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("stages: [")
    with pytest.raises(ConfigError, match="is no YAML"):
        load_recipe(broken)
    with pytest.raises(ConfigError, match="at least one stage"):
        recipe_from({"name": "none"})

"""Tiny stand-ins: they are what they are called, and behave as models of their kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig

from mmembed.errors import ConfigError
from mmembed.gpte.mining import CrossEncoder
from mmembed.gpte.recipe import MergeStage, MineStage, Recipe, TrainStage, load_recipe, recipe_from
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import WIDTH, Shape, tiny_model, tiny_recipe

RECIPES = Path(__file__).parents[2] / "configs" / "recipes" / "text"
TEXTS = ["a cat", "a much longer text about the rivers of the world, and of ships", "b"]


def families_of(recipe: Recipe) -> set[str]:
    """Every architecture that a recipe names."""
    found = {"bert"}
    for stage in recipe.stages:
        if isinstance(stage, TrainStage):
            found.add(stage.encoder.family)
            found |= {stage.data.guide.family} if stage.data.guide else set()
            for task in stage.tasks:
                found |= {task.generator_family, task.discriminator_family}
    return found


FAMILIES = sorted(set().union(*(families_of(load_recipe(f)) for f in RECIPES.glob("*.yaml"))))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_depend_on_the_batch(family: str, tmp_path: Path) -> None:
    folder = tiny_model(family, tmp_path / family)
    assert AutoConfig.from_pretrained(folder).model_type == family
    encoder = TextEncoder.from_pretrained(folder).eval()
    rows = encoder.tokenize(TEXTS)
    with torch.inference_mode():
        together = encoder(encoder.collate(rows)).dense
        alone = torch.cat([encoder(encoder.collate([row])).dense for row in rows])
    assert together.shape == (len(TEXTS), WIDTH)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert bool((together[0] != together[1]).any())


def test_an_unknown_family(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model_type 'bret'"):
        tiny_model("bret", tmp_path / "bret")
    assert not (tmp_path / "bret").exists()


def test_models_are_made_once_and_alike(tmp_path: Path) -> None:
    first = TextEncoder.from_pretrained(tiny_model("bert", tmp_path / "a")).state_dict()
    again = TextEncoder.from_pretrained(tiny_model("bert", tmp_path / "a", seed=1)).state_dict()
    other = TextEncoder.from_pretrained(tiny_model("bert", tmp_path / "b", seed=1)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", ["bert", "qwen3", "t5"])
def test_other_sizes_and_words(family: str, tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0, "the": 1, "river": 2, "[PAD]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.enable_truncation(2)
    words.enable_padding(length=9)
    shape = Shape(width=16, layers=1)
    folder = tiny_model(family, tmp_path / family, shape=shape, words=words)
    encoder = TextEncoder.from_pretrained(folder).eval()
    assert encoder.dim == 16
    assert encoder.tokenizer.pad_token_id == 3
    (row,) = encoder.tokenize(["the river the river"])
    plain = {"bert": ("[CLS]", "[SEP]"), "qwen3": (), "t5": ("</s>",)}[family]
    around = [encoder.tokenizer.convert_tokens_to_ids(token) for token in plain]
    assert sorted(row.input_ids) == sorted([1, 2, 1, 2, *around])
    with torch.inference_mode():
        out = encoder(encoder.collate(encoder.tokenize(["the river", "river the"]))).dense
    assert bool((out[0] != out[1]).any())


def test_a_reranker_scores_pairs(tmp_path: Path) -> None:
    judge = CrossEncoder(tiny_model("bert", tmp_path / "judge", reranker=True))
    scores = judge([("a", "b"), ("a", "something else")])
    assert all(0.0 < score < 1.0 for score in scores)
    assert scores[0] != scores[1]


def test_instructions_leave_room_for_the_text(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "qwen3-embedding.yaml", [f"output={tmp_path}"])
    stage = tiny_recipe(recipe, tmp_path).stages[0]
    assert isinstance(stage, TrainStage)
    encoder = TextEncoder.from_pretrained(stage.encoder.backbone, stage.encoder.text_settings)
    short, long = encoder.tokenize(["a river", "a river and its ships"], role="query")
    assert long.tokens > short.tokens


def test_what_is_cut_down_and_what_stays(tmp_path: Path) -> None:
    source = {"path": "rows.jsonl", "negatives": ["negatives"]}
    objective = {"name": "matryoshka", "dims": [64, 768], "objective": "infonce"}
    recipe = recipe_from(
        {
            "name": "tried",
            "encoder": {"backbone": "some/bert", "settings": {"pooling": "first"}},
            "stages": [
                {
                    "name": "mined",
                    "kind": "mine",
                    "model": "some/other",
                    "data": {"sources": [source]},
                },
                {
                    "name": "train",
                    "data": {"sources": [source], "negatives": 7},
                    "objective": objective,
                    "batch": {"size": 1024, "chunk_rows": 64},
                    "schedule": {"epochs": 3, "lr": 0.5},
                    "checkpoint": {"every": 1000, "models": True},
                },
                {
                    "name": "merged",
                    "kind": "merge",
                    "models": ["stage://train@1000", "stage://train"],
                },
            ],
        }
    )
    mined, train, merged = tiny_recipe(recipe, tmp_path).stages
    assert isinstance(mined, MineStage)
    assert isinstance(train, TrainStage)
    assert isinstance(merged, MergeStage)
    assert Path(mined.model).parent == Path(train.encoder.backbone).parent == tmp_path
    assert train.objective == {"name": "matryoshka", "dims": [2, WIDTH], "objective": "infonce"}
    assert train.encoder.settings["pooling"] == "first"
    assert (train.schedule.lr, train.schedule.steps) == (0.5, 3)
    assert train.batch.size < 10
    assert merged.models == (f"stage://train@{train.checkpoint.every}", "stage://train")


def test_a_head_that_is_no_sequence_of_layers_is_named(tmp_path: Path) -> None:
    folder = tiny_model("distilbert", tmp_path / "distilbert")
    with pytest.raises(ConfigError, match="DistilBertForMaskedLM is not a plain sequence"):
        TextEncoder.from_pretrained(folder, TextSettings(heads=("splade",)))

"""Hard negatives: what may be one, margins, the reranker, and the file that later stages read."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import write_rows

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.config import DataConfig, SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of
from mmembed.gpte.data.sources import Place
from mmembed.gpte.encoding import encode
from mmembed.gpte.mining import CrossEncoder, mine_negatives
from mmembed.gpte.recipe import MineStage, recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_model("bert", tmp_path_factory.mktemp("tiny") / "bert"))


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    return SourceConfig(str(write_rows(tmp_path / "rows.jsonl", 30)), name="rows")


def stage(source: SourceConfig, **options: Any) -> MineStage:
    return MineStage("mined", DataConfig((source,)), **options)


def examples(source: SourceConfig) -> list[Example]:
    return list(examples_of(source, Report(""), "raise"))


def test_negatives_are_the_best_ranked_documents_that_are_no_answer(
    encoder: TextEncoder, source: SourceConfig
) -> None:
    given = examples(source)
    documents = list(dict.fromkeys(e.positive or "" for e in given))
    keys = F.normalize(encode(encoder, documents, role="document"), dim=1)
    for row in mine_negatives(encoder, given, source, stage(source, negatives=4, ranks=(1, 9))):
        query = F.normalize(encode(encoder, [row.example.query], role="query"), dim=1)
        scores = dict(zip(documents, (query @ keys.T)[0].tolist(), strict=True))
        own = scores.pop(row.example.positive or "")
        expected = sorted(scores, key=lambda text: -scores[text])[1:5]
        assert list(row.negatives) == expected
        assert row.scores == pytest.approx([own, *(scores[t] for t in expected)], abs=1e-5)


def test_answers_of_an_equal_query_and_the_query_itself_are_no_negatives(
    encoder: TextEncoder, source: SourceConfig
) -> None:
    place = Place("f", 1)
    pairs = [("a fox", "it runs"), ("a fox", "it hunts"), ("a ship", "a fox"), ("b", "it sails")]
    given = [Example(place, query, positive) for query, positive in pairs]
    rows = list(mine_negatives(encoder, given, source, stage(source, negatives=9)))
    assert [set(row.negatives) for row in rows] == [
        {"it sails"},
        {"it sails"},
        {"it runs", "it hunts", "it sails"},
        {"it runs", "it hunts", "a fox"},
    ]


@pytest.mark.parametrize("options", [{"margin": 0.01}, {"relative": 0.98}])
def test_margins(encoder: TextEncoder, source: SourceConfig, options: dict[str, float]) -> None:
    rows = list(
        mine_negatives(encoder, examples(source), source, stage(source, negatives=30, **options))
    )
    assert any(0 < len(row.negatives) < 29 for row in rows)
    for row in rows:
        own, *others = row.scores
        limit = own - 0.01 if "margin" in options else options["relative"] * own
        assert all(score < limit for score in others)


def test_the_reranker_has_the_last_word(encoder: TextEncoder, source: SourceConfig) -> None:
    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [0.5] + [0.1 if "fox" in document else 0.9 for _, document in pairs[1:]]

    options = stage(source, reranker="x")
    rows = list(mine_negatives(encoder, examples(source), source, options, judge))
    for row in rows:
        # Log-odds of 0.5 for the positive, and of 0.1 for what is kept.
        assert row.reranker_scores == pytest.approx([0.0, *[math.log(1 / 9)] * len(row.negatives)])
    found = [text for row in rows for text in row.negatives]
    assert found
    assert all("fox" in text for text in found)


def test_a_mined_file_trains_the_next_stage(tmp_path: Path, source: SourceConfig) -> None:
    bert = str(tiny_model("bert", tmp_path / "bert"))
    reranker = str(tiny_model("bert", tmp_path / "reranker", reranker=True))
    data = {"sources": [{"path": source.path, "licence": "CC BY 4.0"}]}
    mined = {"path": "stage://mined", "negatives": ["negatives"], "teacher": "reranker_scores"}
    recipe = recipe_from(
        {
            "name": "two",
            "output": str(tmp_path / "run"),
            "encoder": {"backbone": bert},
            "stages": [
                {
                    **{"kind": "mine", "name": "mined", "model": "base", "data": data},
                    **{"negatives": 3, "reranker": reranker, "reranker_share": 1.5},
                },
                {
                    "name": "fine",
                    "objective": {"name": "kl"},
                    "data": {"sources": [mined], "negatives": 3},
                    "batch": {"size": 4},
                    "schedule": {"steps": 2},
                },
            ],
        }
    )
    outcomes = run_recipe(recipe)
    assert outcomes["mined"].rows is not None
    lines = [json.loads(line) for line in outcomes["mined"].rows.open(encoding="utf-8")]
    assert len(lines) == outcomes["mined"].metrics["rows"] == 30
    assert all(len(line["scores"]) == len(line["reranker_scores"]) == 4 for line in lines)
    assert outcomes["fine"].model is not None
    card = (outcomes["fine"].model / "README.md").read_text()
    assert "| mined | 30 | CC BY 4.0 |" in card  # of the texts that were mined


def test_no_negative_at_all_is_an_error(tmp_path: Path, source: SourceConfig) -> None:
    bert = str(tiny_model("bert", tmp_path / "bert"))
    values = {"kind": "mine", "name": "m", "model": bert, "margin": 3.0}
    values["data"] = {"sources": [{"path": source.path}]}
    recipe = recipe_from({"name": "r", "output": str(tmp_path / "run"), "stages": [values]})
    with pytest.raises(ConfigError, match="none of 30 queries has a negative"):
        run_recipe(recipe)
    assert [path.name for path in (tmp_path / "run/m").iterdir()] == ["stage.yaml"]


def test_a_cross_encoder_equals_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_model("bert", tmp_path / "reranker", reranker=True)
    pairs = [("a fox", "it runs"), ("a longer query", "and a much longer document"), ("a", "b")]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        alone = [float(model(**tokenizer(q, d, return_tensors="pt")).logits) for q, d in pairs]
    assert CrossEncoder(folder)(pairs) == pytest.approx(torch.tensor(alone).sigmoid().tolist())
    assert (
        len(CrossEncoder(folder)([("a fox " * 99, "it runs " * 99)])) == 1
    )  # beyond its positions
    with pytest.raises(ModelLoadError, match="nowhere"):
        CrossEncoder(tmp_path / "nowhere")

"""Held-out measures of every head equal the definition, text by text."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe, write_rows

from mmembed.errors import ConfigError
from mmembed.gpte.config import EvaluationConfig, EvaluationSet, SourceConfig
from mmembed.gpte.evaluating import Evaluator
from mmembed.gpte.metrics import ndcg, spearman
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model

SCORES = ["cosine", "dot", "sparse", "maxsim", "mean_maxsim"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    torch.manual_seed(0)
    settings = TextSettings(heads=("dense", "lexical", "multi"), multi_dim=8)
    folder = tiny_model("bert", tmp_path_factory.mktemp("tiny") / "bert")
    return TextEncoder.from_pretrained(folder, settings)


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    return SourceConfig(str(write_rows(tmp_path / "rows.jsonl", 20)), "rows", label="score")


@torch.no_grad()
def alone(encoder: TextEncoder, text: str, role: str) -> Outputs:
    out: Outputs = encoder(encoder.collate(encoder.tokenize([text], role=role)))
    return out


def by_hand(query: Outputs, document: Outputs, score: str) -> float:
    def dense(out: Outputs) -> Tensor:
        assert out.dense is not None
        return out.dense[0]

    if score == "sparse":
        assert query.sparse is not None
        assert document.sparse is not None
        return float(query.sparse[0] @ document.sparse[0])
    if score == "cosine":
        return float(F.cosine_similarity(dense(query), dense(document), dim=0))
    if score == "dot":
        return float(dense(query) @ dense(document))
    assert query.multi is not None
    assert document.multi is not None
    best = (query.multi[0] @ document.multi[0].T).amax(dim=1)
    return float(best.sum() if score == "maxsim" else best.mean())


@pytest.mark.parametrize("score", SCORES)
def test_every_score_equals_its_definition(
    encoder: TextEncoder, source: SourceConfig, score: Any
) -> None:
    rows = [json.loads(line) for line in Path(source.path).read_text().splitlines()]
    found = Evaluator(EvaluationConfig((EvaluationSet("retrieval", source, score),)))(encoder)
    encoder.eval()
    queries = [alone(encoder, row["query"], "query") for row in rows]
    documents = [alone(encoder, row["positive"], "document") for row in rows]
    table = np.array([[by_hand(q, d, score) for d in documents] for q in queries])
    expected = float(ndcg(table, np.eye(len(rows)), 10).mean())
    assert found == {"rows/ndcg@10": pytest.approx(expected, abs=1e-6)}

    found = Evaluator(EvaluationConfig((EvaluationSet("sts", source, score),)))(encoder)
    labels = np.array([row["score"] for row in rows])
    expected = spearman(np.diag(table), labels)
    assert found == {"rows/spearman": pytest.approx(expected, abs=1e-6)}


def test_rows_make_up_the_numbers(encoder: TextEncoder, source: SourceConfig) -> None:
    again = replace(source, name="again")
    sets = (EvaluationSet("retrieval", source), EvaluationSet("sts", again))
    evaluator = Evaluator(EvaluationConfig(sets))
    numbers, rows = evaluator(encoder), evaluator.rows(encoder)
    assert {name: one.number() for name, one in rows.items()} == numbers
    asked, pairs = rows["rows/ndcg@10"], rows["again/spearman"]
    assert asked.values.shape == pairs.values.shape == (20,)
    assert asked.number([3, 3]) == asked.values[3]
    some = [1, 1, 4, 7, 9]
    assert pairs.labels is not None
    assert pairs.number(some) == spearman(pairs.values[some], pairs.labels[some])


def test_batches_change_nothing_and_the_mode_comes_back(
    encoder: TextEncoder, source: SourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmembed.gpte import evaluating

    sets = (EvaluationSet("retrieval", source, "maxsim"),)
    whole = Evaluator(EvaluationConfig(sets))(encoder.train())
    assert encoder.training
    monkeypatch.setattr(evaluating, "_BATCH_TOKENS", 64)
    assert Evaluator(EvaluationConfig(sets))(encoder) == whole


def test_a_head_that_is_not_there_is_an_error(tmp_path: Path, source: SourceConfig) -> None:
    dense = TextEncoder.from_pretrained(tiny_model("bert", tmp_path / "bert"))
    measure = Evaluator(EvaluationConfig((EvaluationSet("retrieval", source, "sparse"),)))
    with pytest.raises(ConfigError, match="sparse"):
        measure(dense)


def test_a_sparse_model_is_measured_while_it_trains(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held_out.jsonl", 12, seed=5)
    stage = {
        "encoder": {"lm_head": True, "settings": {"heads": ["splade"]}},
        "objective": {"name": "infonce", "score": "sparse", "temperature": 1.0},
        "evaluation": {
            "sets": [{"kind": "retrieval", "source": {"path": str(held_out)}, "score": "sparse"}],
            "every": 5,
            "best": "held_out/ndcg@10",
        },
    }
    outcome = run_recipe(recipe(tmp_path, stage))["only"]
    assert 0 < outcome.start["held_out/ndcg@10"] <= 1
    assert 0 < outcome.metrics["held_out/ndcg@10"] <= 1

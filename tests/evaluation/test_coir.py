"""The embedder in coir-eval; the full environment has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from counting_model import CountingModel

from mmembed import Embedder
from mmembed.evaluation.benchmarks import read_benchmark
from mmembed.evaluation.coir_model import CoirModel


def test_coir_gives_our_figure(tmp_path: Path, project_root: Path) -> None:
    """Functions by their names, through coir's own loop, its search and its metrics."""
    evaluation = pytest.importorskip("coir.evaluation", reason="coir-eval is not installed")
    task: Any = read_benchmark("code", project_root / "data")["name"]
    model = Embedder.from_pretrained("mini")
    corpus = {f"d{i}": {"text": text, "title": ""} for i, text in enumerate(task.documents)}
    queries = {f"q{i}": text for i, text in enumerate(task.queries)}
    judged = {
        f"q{i}": {f"d{j}": int(g) for j, g in one.items()} for i, one in enumerate(task.gains)
    }
    run = evaluation.COIR({"names": (corpus, queries, judged)}, batch_size=16)
    found = run.run(CoirModel(model), str(tmp_path))
    ours = task.score(task.encode(model)).metrics
    assert found["names"]["NDCG"]["NDCG@10"] == pytest.approx(ours["ndcg@10"].value, abs=1e-5)
    assert found["names"]["Recall"]["Recall@10"] == pytest.approx(ours["recall@10"].value, abs=1e-5)
    assert json.loads((tmp_path / "names.json").read_text())["metrics"]


def test_coir_reads_texts_alone() -> None:
    model = CoirModel(CountingModel())
    with_title = model.encode_corpus([{"title": "t", "text": "b"}, {"text": " "}])
    assert torch.equal(with_title[0], model.encode_queries(["b"])[0])
    assert with_title.shape == (2, 256)

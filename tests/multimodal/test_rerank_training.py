"""Training rerankers: losses, gradients through pairs, resume, and what cannot be trained."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from media_cases import media_recipe, run, write_media_rows

from mmembed import Reranker
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.objectives import PairBinary, PairDistillation, PairSoftmax
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.recipe import Recipe
from mmembed.multimodal.config import MediaEvaluationSet, MediaSourceConfig
from mmembed.multimodal.reranking import training as reranking
from mmembed.multimodal.reranking.encoder import start_pair_encoder

ANSWERS = {"yes": "y", "no": "n"}


def by_hand(kind: str, z: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    total = z.new_zeros(())
    for row, told in zip(z, teacher, strict=True):
        if kind == "binary":
            judged = [(row[0].neg().exp() + 1).log(), *((v.exp() + 1).log() for v in row[1:])]
            total = total + torch.stack(judged).mean()
        elif kind == "softmax":
            total = total + row.exp().sum().log() - row[0]
        else:
            p, q = told.exp() / told.exp().sum(), row.exp() / row.exp().sum()
            total = total + (p * (p.log() - q.log())).sum()
    return total / len(z)


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("binary", PairBinary()), ("softmax", PairSoftmax()), ("kl", PairDistillation())],
)
def test_losses_equal_their_formulas_and_gradients(kind: str, objective: Any) -> None:
    torch.manual_seed(0)
    z = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(3, 3, dtype=torch.float64)
    made = Columns(
        Outputs(dense=z[:, :1]),
        negative=Outputs(dense=z[:, 1:].reshape(-1, 1)),
        negatives_per_query=2,
        meta={"teacher": teacher},
    )
    found = objective(made).total
    expected = by_hand(kind, z, teacher)
    torch.testing.assert_close(found.double(), expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (found, expected)))


def test_pairs_to_compare_need_negatives() -> None:
    alone = Columns(Outputs(dense=torch.zeros(2, 1)))
    with pytest.raises(ConfigError, match="negative"):
        PairSoftmax()(alone)
    found = PairBinary()(alone).total
    torch.testing.assert_close(found, F.softplus(torch.zeros(())))


def pair_recipe(folder: Path, objective: Any = "pair_binary", **stage: Any) -> Recipe:
    base = {
        "kind": "multimodal-rerank",
        "objective": objective,
        "encoder": {"settings": ANSWERS},
        "source": {"negatives": ["negatives"], "teacher": "teacher"},
        "data": {"negatives": 2},
    }
    return media_recipe(folder, base | stage)


def trained(recipe: Recipe) -> Reranker:
    return Reranker.from_pretrained(Path(recipe.output) / "only/model", device="cpu")


@pytest.mark.parametrize("objective", ["pair_binary", "pair_softmax", "pair_kl"])
def test_a_yes_no_reranker_learns_its_rows(objective: str, tmp_path: Path) -> None:
    losses: list[float] = []
    recipe = pair_recipe(tmp_path, objective, schedule={"steps": 24, "lr": 3e-3})
    run(recipe, on_step=lambda stage, step: losses.append(step.loss))
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    scores = trained(recipe).score("a red card, number 0", [tmp_path / "0-0.png", "not red"])
    assert np.isfinite(scores).all()


def test_stopped_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    whole = replace(pair_recipe(tmp_path), output=str(tmp_path / "whole"))
    run(whole)
    parts = replace(pair_recipe(tmp_path), output=str(tmp_path / "parts"))
    run(parts, stop_after=3)
    run(parts)
    one, two = (trained(each).scorer.state_dict() for each in (whole, parts))  # type: ignore[attr-defined]
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_chunks_change_no_gradient(tmp_path: Path) -> None:
    found = []
    for name, batch in (("plain", {"size": 4}), ("chunks", {"size": 4, "chunk_rows": 3})):
        recipe = pair_recipe(tmp_path, batch=batch, schedule={"steps": 3, "lr": 1e-3, "eps": 1e-2})
        recipe = replace(recipe, output=str(tmp_path / name))
        run(recipe)
        found.append(trained(recipe).scorer.state_dict())  # type: ignore[attr-defined]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=2e-6, msg=name)


def test_a_matching_head_learns_and_refuses_other_pairs(tmp_path: Path) -> None:
    towers = {"backbone": str(tiny_towers("blip", tmp_path / "blip")), "settings": {}}
    other = replace(pair_recipe(tmp_path, encoder=towers), output=str(tmp_path / "other"))
    with pytest.raises(InputError, match="one text and one picture"):
        run(other)
    rows = tmp_path / "rows.jsonl"
    kept = rows.read_text(encoding="utf-8").splitlines(keepends=True)[::3]  # text and one picture
    rows.write_text("".join(kept), encoding="utf-8")
    more = {"source": {"negatives": []}, "data": {"bad_rows": "skip"}}
    recipe = pair_recipe(tmp_path, encoder=towers, **more)
    before = Reranker.from_pretrained(towers["backbone"], device="cpu")
    run(recipe)
    inputs = ("a red card, number 0", [tmp_path / "0-0.png"])
    assert trained(recipe).score(*inputs) > before.score(*inputs)  # nothing but matches was shown


def test_a_reranker_orders_what_its_retriever_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    probability = {0: 0.5, 1: 0.9, 2: 0.2, 3: 0.99}

    class Stub:
        def __init__(self, scorer: Any) -> None: ...

        def score(self, query: Any, documents: list[int]) -> np.ndarray:
            return np.array([probability[one] for one in documents], np.float32)

    monkeypatch.setattr(reranking, "Reranker", Stub)
    source = MediaSourceConfig("rows.jsonl")
    one = MediaEvaluationSet(source, retriever="first", top=2, retriever_weight=1.0)
    scores = reranking.PairScores(str)
    cosines = np.array([[0.8, 0.6, 0.7, 0.1]])
    monkeypatch.setattr(reranking, "embedder_scores", lambda *_: cosines)
    monkeypatch.setattr(reranking.Embedder, "from_pretrained", lambda name: name)
    (row,) = scores(SimpleNamespace(scorer=None), one, ["q"], [0, 1, 2, 3])  # type: ignore[arg-type,list-item]
    expected = [0.8, 0.6 - 100, math.log(0.25) + 0.7, 0.1 - 100]
    np.testing.assert_allclose(row, expected, rtol=1e-6)
    everything = replace(one, retriever="")
    (row,) = scores(SimpleNamespace(scorer=None), everything, ["q"], [0, 1, 2, 3])  # type: ignore[arg-type,list-item]
    assert np.argsort(-row).tolist() == [3, 1, 0, 2]


def test_a_retriever_is_measured_with(tmp_path: Path) -> None:
    rows = str(write_media_rows(tmp_path))
    found = {"source": {"path": rows}, "retriever": "base", "top": 3}
    outcome = run(pair_recipe(tmp_path, evaluation={"sets": [found]}))["only"]
    assert 0 <= outcome.start["rows/ndcg@10"] <= 1
    with pytest.raises(ConfigError, match="an embedder ranks all documents itself"):
        media_recipe(tmp_path, {"evaluation": {"sets": [found]}})
    with pytest.raises(ConfigError, match="leave out reverse"):
        pair_recipe(tmp_path, evaluation={"sets": [found | {"reverse": True}]})


def test_what_a_reranker_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a reranker has no vectors"):
        pair_recipe(tmp_path, encoder={"train": "none", "task": "own"})
    with pytest.raises(ConfigError, match="unknown key 'pooling'"):
        run(pair_recipe(tmp_path, encoder={"settings": {"pooling": "last"}}))
    frozen = pair_recipe(tmp_path / "frozen", encoder={"settings": ANSWERS, "train": "none"})
    scorer = start_pair_encoder(frozen.stages[0].encoder)  # type: ignore[union-attr]
    assert [name for name, p in scorer.named_parameters() if p.requires_grad] == ["full.answers"]

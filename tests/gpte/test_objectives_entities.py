"""EASE's loss against its formula, and its data from file to gradient."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.objectives import EntityContrast, learned_parameters
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.run import run_recipe

N, D = 4, 6


def batch(entities: list[list[int]], count: int) -> tuple[Columns, torch.nn.ParameterDict]:
    torch.manual_seed(0)
    learned = learned_parameters(EntityContrast(count), D).double()
    with torch.no_grad():
        for tensor in learned.values():
            tensor.normal_()
    query = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    meta = {"entities": torch.tensor(entities)}
    return Columns(Outputs(dense=query), meta=meta, shared=dict(learned.items())), learned


def test_it_is_the_authors_formula_where_entities_differ() -> None:
    entities = [[0, 4, 8], [1, 5, 9], [2, 6, 9], [3, 7, 8]]
    columns, learned = batch(entities, 10)
    found = EntityContrast(10, temperature=0.5, hard_weight=0.7)(columns).total

    def vector(number: int) -> torch.Tensor:
        table, weight, bias = (learned[f"entity_{n}"] for n in ("vectors", "weight", "bias"))
        return torch.tanh(weight @ table[number] + bias)

    assert columns.query.dense is not None
    losses = []
    for i, sentence in enumerate(columns.query.dense):
        logits = [F.cosine_similarity(sentence, vector(row[0]), dim=0) / 0.5 for row in entities]
        for j, row in enumerate(entities):
            for hard in row[1:]:
                own = 0.7 if i == j else 0.0
                logits.append(F.cosine_similarity(sentence, vector(hard), dim=0) / 0.5 + own)
        losses.append(F.cross_entropy(torch.stack(logits)[None], torch.tensor([i])))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected)
    wanted = [columns.query.dense, *learned.values()]
    for ours, theirs in zip(
        torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_same_entity_elsewhere_is_no_negative() -> None:
    columns, _ = batch([[0, 1], [0, 2], [3, 0], [4, 2]], 5)
    loss = EntityContrast(5, temperature=0.5)(columns).total
    alone, _ = batch([[0, 1], [4, 2], [3, 1], [4, 2]], 5)
    assert bool(loss.isfinite())
    assert float(loss.detach()) != float(EntityContrast(5, temperature=0.5)(alone).total.detach())
    assert columns.query.dense is not None
    only = Columns(
        Outputs(dense=columns.query.dense[:2]),
        meta={"entities": torch.tensor([[0], [0]])},
        shared=columns.shared,
    )
    assert float(EntityContrast(5)(only).total.detach()) == 0.0  # nothing is left to compete


def test_numbers_beyond_the_count_are_named() -> None:
    columns, _ = batch([[0, 1], [5, 2], [3, 0], [4, 2]], 5)
    with pytest.raises(ConfigError, match="entity 5 is named, and count is 5"):
        EntityContrast(5)(columns)


def test_rows_without_entities_are_named(tmp_path: Path) -> None:
    rows = [{"query": f"text {i}", "entities": [i, 9 - i]} for i in range(6)]
    stage = {
        "source": {"positive": "query", "entities": "entities"},
        "objective": {"name": "entities", "count": 10},
        "batch": {"size": 3},
        "schedule": {"steps": 2, "lr": 1e-3},
    }
    good = tmp_path / "good"
    good.mkdir()
    (good / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for streaming in (False, True):
        built = recipe(good / str(streaming), {**stage, "data": {"streaming": streaming}})
        source = built.stages[0].data.sources[0]  # type: ignore[union-attr]
        Path(source.path).write_text((good / "rows.jsonl").read_text())
        assert run_recipe(built)["only"].model is not None
    for wrong, message in (
        ({"entities": [1.5, 2]}, r"rows\.jsonl:7.*'entities' must list numbers of entities"),
        ({"entities": [1]}, "2 entities and 1: they cannot share a batch|1 entities and 2"),
    ):
        bad = tmp_path / f"bad{len(str(wrong))}"
        bad.mkdir()
        lines = [*rows, {"query": "last", **wrong}]
        (bad / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        with pytest.raises(InputError, match=message):
            run_recipe(recipe(bad, {**stage, "batch": {"size": 7}}))

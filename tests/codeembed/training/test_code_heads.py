"""Token objectives against float64 formulas, labels against the tree, views against their code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from codeembed.training.config import CodeTaskConfig
from codeembed.training.heads import labels_of
from codeembed.training.objectives import IGNORE, edge_loss, identifier_loss, type_loss
from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES
from codeembed.training.views import VIEWS
from codeembed.transform.tree import Code
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.recipe import recipe_from
from mmembed.gpte.run import run_recipe

SOURCE = (
    b"def f(xs):\n    total = 0  # so far\n    for x in xs:\n        total += x\n    return total\n"
)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_identifier_loss_is_the_formula() -> None:
    logits = torch.tensor([0.5, -1.25, 2.0, 9.0], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, IGNORE])
    wanted = (_softplus(-0.5) + _softplus(-1.25) + _softplus(2.0)) * 0.25
    assert float(identifier_loss(logits, labels, 0.25)) == pytest.approx(wanted, abs=1e-12)
    narrow = identifier_loss(logits.to(torch.bfloat16), labels, 0.25)
    assert narrow.dtype == torch.float32


def test_type_loss_is_the_formula() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
    first = -2.0 + math.log(math.e + math.exp(2.0) + math.exp(0.5))
    wanted = first * 0.5
    found = type_loss(logits, torch.tensor([1, IGNORE]), 0.5)
    assert float(found) == pytest.approx(wanted, abs=1e-12)


def test_edge_loss_is_the_formula() -> None:
    hidden = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.25, 0.25]], dtype=torch.float64)
    pairs, labels = torch.tensor([[0, 1], [1, 2]]), torch.tensor([1, 0])
    wanted = (_softplus(-0.5) + _softplus(0.375)) * 0.5
    assert float(edge_loss(hidden, pairs, labels, 0.5)) == pytest.approx(wanted, abs=1e-12)


def test_labels_come_from_the_tree() -> None:
    code = Code.read(b"x = f(y)", "python")
    spans = [(0, 0), (0, 1), (1, 3), (3, 5), (5, 6), (6, 7), (7, 8), (0, 0)]
    identifier = labels_of(CodeTaskConfig("identifier"), code, spans)
    assert identifier == [IGNORE, 1, 0, 1, 0, 1, 0, IGNORE]
    kinds = labels_of(CodeTaskConfig("type"), code, spans)
    assert kinds[1] == kinds[3] == kinds[5] != kinds[2]
    parents = labels_of(CodeTaskConfig("parent"), code, spans)
    assert parents[4] == parents[5] != parents[3]


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_shows_something(name: str) -> None:
    code = Code.read(SOURCE, "python")
    shown = VIEWS[name](code, 1)
    assert shown
    assert VIEWS[name](code, 1) == shown
    if name not in ("code", "masked", "typed", "lines"):
        assert shown != SOURCE.decode()


def _run(tmp_path: Path, rows: list[dict[str, str]], **stage: object) -> list[dict[str, str]]:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {"name": "v", "kind": "views", "source": str(source), **stage}
    recipe = recipe_from({"name": "r", "output": str(tmp_path / "out"), "stages": [values]},
                         CODE_STAGES)  # fmt: skip
    made = next(iter(run_recipe(recipe, more=CODE_RUNNERS).values())).rows
    assert made is not None
    return [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]


def test_views_make_columns_and_deviants(tmp_path: Path) -> None:
    row = {"query": "sum it up", "positive": SOURCE.decode(), "language": "python"}
    columns = {"query": ["=query", "ast"], "positive": ["clone"]}
    broken = {**row, "positive": "def f(:"}
    found = _run(tmp_path, [row, broken], columns=columns, deviants=1, copies=2)
    assert len(found) == 2
    assert found[0]["query"].startswith("sum it up\nmodule function_definition def f")
    assert found[0]["positive"] != SOURCE.decode()
    assert len(found[0]["negatives"]) == 1


def test_wrong_views_are_named(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "def f(:", "language": "python"}
    with pytest.raises(ConfigError, match="unknown view 'tree'"):
        _run(tmp_path, [row], columns={"positive": ["tree"]})
    with pytest.raises(ConfigError, match="no column 'title'"):
        _run(tmp_path, [{**row, "positive": "x = 1"}], columns={"query": ["~title"]}, name="none")
    with pytest.raises(ConfigError, match="no row"):
        _run(tmp_path, [row], columns={"positive": ["code"]})
    with pytest.raises(InputError, match="no column 'text'"):
        _run(tmp_path, [row], columns={"positive": ["code"]}, code="text",
             name="other")  # fmt: skip

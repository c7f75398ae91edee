"""Edges of the tree: read off the very tokens, asked with as many that are none, and learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from codeembed.training.config import CodeTaskConfig
from codeembed.training.edges import TreeEdges, asked_pairs, nodes_of
from codeembed.training.graph_heads import PairWork
from codeembed.training.heads import head_of
from codeembed.training.reading import SEPARATOR
from codeembed.transform.tree import Code
from codeembed.views.flatten import linearise
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model

SOURCE = "x = f(y)"
TREE = linearise(Code.read(SOURCE.encode(), "python"))
EDGES = {
    ("module", "expression_statement"), ("expression_statement", "assignment"),
    ("assignment", "x"), ("assignment", "="), ("assignment", "call"), ("call", "f"),
    ("call", "argument_list"), ("argument_list", "("), ("argument_list", "y"),
    ("argument_list", ")"),
}  # fmt: skip


def row_of(*more: str) -> str:
    return SEPARATOR.join([SOURCE, " ".join(TREE), *more])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("edges") / "roberta"
    return TextEncoder.from_pretrained(tiny_model("roberta", folder), lm_head=True)


def head(encoder: TextEncoder) -> TreeEdges:
    made = head_of(CodeTaskConfig("edge"), encoder)
    assert isinstance(made, TreeEdges)
    return made


def words(text: str, pairs: Sequence[Sequence[int]]) -> list[tuple[str, str]]:
    """The pieces that begin where pairs of bytes point, behind the first token of the row."""
    ends = (" ", SEPARATOR)

    def piece(at: int) -> str:
        found = text[at - 1 :].lstrip()
        return found[: min(found.find(e) % (len(found) + 1) for e in ends)]

    return [(piece(a), piece(b)) for a, b in pairs]


@pytest.mark.parametrize("more", [(), ("sums up",)])
def test_every_edge_is_asked_and_others_are_none(
    encoder: TextEncoder, more: tuple[str, ...]
) -> None:
    text = row_of(*more)
    (work,) = head(encoder).prepare(
        encoder,
        {"positive": [encoder.tokenize([text, "just = 1", text])]},
        torch.Generator().manual_seed(0),
    )
    assert isinstance(work, PairWork)
    second = sum(work.batch.lengths[:2])
    assert not any(work.batch.lengths[0] <= at < second for at in work.pairs.flatten().tolist())
    labels = work.labels.tolist()
    for start, stop in ((0, second), (second, second + work.batch.lengths[2])):
        rows = [
            (pair, label)
            for pair, label in zip((work.pairs - start).tolist(), labels, strict=True)
            if 0 <= pair[0] < stop - start
        ]
        right = words(text, [pair for pair, label in rows if label])
        wrong = words(text, [pair for pair, label in rows if not label])
        assert set(right) == EDGES
        assert len(right) == len(EDGES)
        assert wrong
        assert not {frozenset(pair) for pair in wrong} & {frozenset(pair) for pair in EDGES}
    assert work.factor == pytest.approx(1 / len(labels))


def test_a_cut_tree_keeps_the_edges_of_what_is_left() -> None:
    code = Code.read(SOURCE.encode(), "python")
    text = row_of().encode()
    cut = text[: text.index(b"call") + 2]
    spans = [(at, at + 1) for at in range(len(cut))]
    assert [parent for _, parent in nodes_of(code, cut, spans)] == [-1, 0, 1, 2, 2, 2]
    assert nodes_of(code, SOURCE.encode(), spans) == []
    other = f"{SOURCE}{SEPARATOR}if_statement x".encode()
    assert nodes_of(code, other, [(at, at + 1) for at in range(len(other))]) == []
    pairs, labels = asked_pairs([], torch.Generator())
    assert pairs.shape == (0, 2)
    assert labels.shape == (0,)


@torch.no_grad()
def test_the_loss_is_the_formula(encoder: TextEncoder) -> None:
    task = head(encoder)
    rows = encoder.tokenize([row_of()])
    (work,) = task.prepare(encoder, {"positive": [rows]}, torch.Generator().manual_seed(1))
    assert isinstance(work, PairWork)
    hidden = encoder.read(work.batch).hidden.double()
    each = [
        math.log1p(
            math.exp((1 - 2 * label) * float(hidden[a] @ hidden[b]) / hidden.shape[1] ** 0.5)
        )
        for (a, b), label in zip(work.pairs.tolist(), work.labels.tolist(), strict=True)
    ]
    assert float(task(encoder, work, None)) == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_a_view_stage_makes_such_rows(tmp_path: Path) -> None:
    from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES
    from mmembed.gpte.recipe import recipe_from
    from mmembed.gpte.run import run_recipe

    source = tmp_path / "rows.jsonl"
    source.write_text('{"query": "q", "positive": "x = f(y)", "language": "python"}\n')
    stage = {"name": "v", "kind": "views", "source": str(source), "separator": SEPARATOR}
    stage["columns"] = {"positive": ["code", "ast"]}  # type: ignore[assignment]
    recipe = recipe_from(
        {"name": "r", "output": str(tmp_path / "out"), "stages": [stage]}, CODE_STAGES
    )
    made = run_recipe(recipe, more=CODE_RUNNERS)["v"].rows
    assert made is not None
    assert '"positive": "x = f(y)\\u001emodule expression_statement' in made.read_text()

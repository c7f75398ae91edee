"""GraphCodeBERT's graph, its attention against the model's own, and its heads on fixed numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional as F
from transformers import RobertaModel

from codeembed.training.config import CodeTaskConfig, GraphConfig
from codeembed.training.graph import GraphExamples, graph_attention
from codeembed.training.graph_heads import GraphHead, PairWork, hidden_edges
from codeembed.transform.tree import Code
from codeembed.views.graph import FlowGraph, flow_graph
from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.objectives.tokens import IGNORE
from mmembed.gpte.rows import Row
from mmembed.gpte.task_building import task_of
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model

CODE = "def f(a):\n    b = a\n    return b\n"
LONGER = "def g(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total\n"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tiny_model("roberta", tmp_path_factory.mktemp("m") / "roberta")
    return TextEncoder.from_pretrained(folder, lm_head=True).eval()


class _Given:
    def __init__(self, encoder: TextEncoder, *codes: str, text: str = "copies") -> None:
        self.query = encoder.tokenize([text] * len(codes))
        self.positive = encoder.tokenize(codes)

    def __len__(self) -> int:
        return len(self.positive)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        return ExampleBatch(self.query, self.positive)


def graphs(
    encoder: TextEncoder, *codes: str, text: str = "copies", joined: bool = False
) -> list[Row]:
    config = GraphConfig(joined=joined)
    batch = GraphExamples(_Given(encoder, *codes, text=text), encoder, config).batch([0], (0, 0, 0))
    return batch.query if joined else batch.positive or []


def test_the_graph_of_a_function_by_hand() -> None:
    code = Code.read(CODE.encode(), "python")
    # [CLS] def f( a ): b = | a return b, and b cut in two.
    spans = [(0, 0), (0, 4), (4, 6), (6, 7), (7, 14), (14, 16), (16, 19), (19, 31), (31, 32)]
    found = flow_graph(code, spans)
    assert CODE[6] == CODE[18] == "a"
    assert CODE[14] == CODE[31] == "b"
    assert found.subwords == ((3,), (5,), (6,), (8,))
    # b is computed from the second a, which comes from the parameter; the last b from the first.
    assert sorted(found.edges) == [(1, 2), (2, 0), (3, 1)]
    assert flow_graph(code, spans, most=2) == FlowGraph(((3,), (5,)), ())
    halves = [*spans[:5], (14, 14), (14, 16), (16, 18), (18, 19), (18, 20)]
    assert flow_graph(code, halves).subwords == ((3,), (6,), (8, 9))


def test_attention_by_hand() -> None:
    """[CLS] a = b [SEP], then a, whose value comes from b, and b."""
    special = torch.tensor([1, 0, 0, 0, 1], dtype=torch.bool)
    wanted = [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 0, 0, 1],
    ]
    found = graph_attention(FlowGraph(((1,), (3,)), ((0, 1),)), special)
    assert found.int().tolist() == wanted
    shifted = graph_attention(FlowGraph(((0,), (2,)), ((0, 1),)), special, shift=1)
    assert torch.equal(shifted, found)


@torch.no_grad()
def test_states_are_those_of_roberta_under_the_same_mask(encoder: TextEncoder) -> None:
    rows = [*graphs(encoder, CODE, LONGER), *encoder.tokenize([CODE])]
    states = encoder.read(encoder.collate(rows)).rows()
    own = RobertaModel(copy.deepcopy(encoder.base.config), add_pooling_layer=False).eval()
    own.load_state_dict(encoder.base.state_dict(), strict=False)
    own.set_attn_implementation("eager")
    for row, found in zip(rows, states, strict=True):
        t = row.spans["code"][0][1] if "code" in row.spans else row.tokens
        places = [*range(2, 2 + t), *[0] * (row.tokens - t)]
        seen = row.extras.get("seen", torch.ones(t, t, dtype=torch.bool))
        mask = torch.zeros(1, 1, row.tokens, row.tokens).masked_fill(~seen, torch.finfo().min)
        wanted = own(
            input_ids=torch.tensor([row.input_ids]),
            attention_mask=mask,
            position_ids=torch.tensor([places]),
        ).last_hidden_state[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    plain = encoder.read(encoder.collate([rows[2]])).hidden
    assert not torch.allclose(states[0][: len(plain)], plain, atol=1e-4)  # the graph tells


def test_a_joined_row_is_text_code_and_variables(encoder: TextEncoder) -> None:
    (row,) = graphs(encoder, CODE, joined=True)
    text, code = encoder.tokenize(["copies", CODE])
    t = len(text.input_ids) + len(code.input_ids) - 1
    assert row.input_ids[:t] == [*text.input_ids, *code.input_ids[1:]]
    assert row.spans["code"] == [(len(text.input_ids), t - 1)]
    assert row.spans["given"] == row.spans["unpooled"] == [(t, t + 4)]
    letters = encoder.tokenizer.convert_ids_to_tokens(row.input_ids[t:])
    assert letters == ["a", "b", "a", "b"]
    seen = row.extras["seen"]
    first = len(text.input_ids) + CODE.index("a)")
    assert [at for at in range(1, t - 1) if seen[t, at] and at != first] == []
    assert seen[t, first]
    assert seen[first, t]
    (long,) = graphs(encoder, CODE, text="w" * 250, joined=True)
    assert long.tokens == encoder.max_tokens
    assert long.input_ids[-1] == text.input_ids[-1]


def test_variables_are_not_masked(encoder: TextEncoder) -> None:
    rows = graphs(encoder, CODE, LONGER, joined=True)
    task = task_of(TokenTaskConfig("mlm", probability=0.9), encoder)
    (work,) = task.prepare(encoder, {task.config.column: [rows]}, torch.Generator().manual_seed(0))
    given = work.batch.spans["given"]
    assert given.any()
    assert (work.labels[given] == IGNORE).all()
    assert (work.labels[~given] != IGNORE).sum() > 50


def test_hidden_edges_by_hand() -> None:
    """Nodes 2, 3 and 4, of which 2 is drawn: 3 is from 2, 4 from 3; 2 stands at token 0."""
    seen = torch.eye(5, dtype=torch.bool)
    seen[:2, :2] = True
    seen[3, 2] = seen[4, 3] = seen[2, 0] = seen[0, 2] = True
    drawn = torch.tensor([0, 0, 1, 0, 0], dtype=torch.bool)
    nodes = torch.tensor([0, 0, 1, 1, 1], dtype=torch.bool)
    left, edges, empty = hidden_edges(seen, drawn, nodes)
    assert edges.nonzero().tolist() == [[3, 2]]
    assert empty.nonzero().tolist() == [[2, 4], [4, 2]]
    assert (seen & ~left).nonzero().tolist() == [[3, 2]]
    left, edges, empty = hidden_edges(seen, drawn, ~nodes)
    assert edges.nonzero().tolist() == [[0, 2], [2, 0]]
    assert empty.nonzero().tolist() == [[1, 2], [2, 1]]
    assert (seen & ~left).nonzero().tolist() == [[0, 2], [2, 0]]


@pytest.mark.parametrize("head", ["flow", "alignment"])
@torch.no_grad()
def test_a_heads_loss_is_binary_cross_entropy_of_hidden_edges(
    encoder: TextEncoder, head: str
) -> None:
    rows = graphs(encoder, LONGER, CODE)
    task = GraphHead(CodeTaskConfig(head))  # type: ignore[arg-type]
    (work,) = task.prepare(encoder, {task.config.column: [rows]}, torch.Generator().manual_seed(1))
    assert isinstance(work, PairWork)
    assert len(work.pairs) == len(work.labels) > 2
    assert work.labels.sum() * 2 == len(work.labels)
    full = torch.block_diag(*(row.extras["seen"].int() for row in rows)).bool()
    kept = torch.block_diag(*(seen.int() for seen in work.batch.seen if seen is not None)).bool()
    first, second = work.pairs.T
    assert torch.equal(full[first, second], work.labels.bool())
    assert not kept[first, second].any()
    hidden = encoder.read(work.batch).hidden
    logits = (hidden[first] * hidden[second]).sum(dim=1) / hidden.shape[1] ** 0.5
    wanted = F.binary_cross_entropy_with_logits(logits, work.labels.float())
    torch.testing.assert_close(task(encoder, work, None), wanted)


def test_what_has_no_place_for_a_graph_is_told(
    encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tiny_model("bert", tmp_path_factory.mktemp("b") / "bert")
    bert = TextEncoder.from_pretrained(folder)
    with pytest.raises(ConfigError, match="no position left"):
        GraphExamples(_Given(bert, CODE), bert, GraphConfig())
    head = GraphHead(CodeTaskConfig("flow"))
    with pytest.raises(ConfigError, match="column positive has no graph"):
        head.prepare(encoder, {head.config.column: [encoder.tokenize([CODE])]}, torch.Generator())
    with pytest.raises(ConfigError, match="nodes >= 1"):
        GraphConfig(nodes=0)

"""GraphCodeBERT's rows: variables behind the code, which attend along its data flow.

Guo et al., 2021: the input is comment, code and the sequence of the code's variables. Variables
have one position of their own. Special tokens see all; tokens of text and code see each other; a
variable sees itself, those that its value comes from, and the tokens that it was read off, which
see it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from codeembed.training.config import GraphConfig
from codeembed.training.joined import Joiner
from codeembed.training.reading import Remembered, code_of, parsed_language
from codeembed.views.graph import FlowGraph, flow_graph
from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch, Examples
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["GraphExamples", "graph_attention"]


def graph_attention(graph: FlowGraph, special: Tensor, shift: int = 0) -> Tensor:
    """``(t + n, t + n)`` bool by query and key, of ``t`` tokens and the graph's ``n`` nodes.

    Args:
        special: ``(t,)`` bool, tokens that see everything.
        shift: Of the graph's subwords, to the tokens of the row.
    """
    t, n = len(special), len(graph.subwords)
    seen = torch.eye(t + n, dtype=torch.bool)
    seen[:t, :t] = True
    seen[:t, t:] = special[:, None]
    for node, subwords in enumerate(graph.subwords):
        places = [shift + place for place in subwords]
        seen[t + node, places] = True
        seen[places, t + node] = True
    for node, source in graph.edges:
        seen[t + node, t + source] = True
    return seen


class GraphExamples:
    """Rows of code with their variables behind them: span ``"given"``, which pooling leaves out.

    A variable is embedded as the first subword of its name, at the position that precedes those of
    tokens. Implements :class:`mmembed.gpte.data.batches.Examples`.

    Args:
        examples: the rows.
        encoder: reads them; of the RoBERTa family, whose first positions no token has.

    Raises:
        ConfigError: it has no such positions, or the language has no syntax trees.
    """

    def __init__(self, examples: Examples, encoder: TextEncoder, config: GraphConfig) -> None:
        if encoder.packing is None or not encoder.packing.first_position:
            raise ConfigError(
                f"graph: {type(encoder.base).__name__} has no position left for variables: take a "
                "model of the RoBERTa family"
            )
        self.examples, self.config = examples, config
        self._tokenizer: Any = encoder.tokenizer
        self._special = torch.tensor(sorted(self._tokenizer.all_special_ids))
        self._joiner = Joiner(encoder) if config.joined else None
        # Positions count from the first one of tokens.
        self._place = -encoder.packing.first_position
        self._language = parsed_language(config.language)
        self._graphs: Remembered[FlowGraph] = Remembered()

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """As :meth:`mmembed.gpte.data.batches.Examples.batch`.

        Raises:
            ConfigError: the tokenizer is not byte-level, or joined rows have no positive.
        """
        batch = self.examples.batch(rows, draw)
        if self._joiner is not None:
            if batch.positive is None:
                raise ConfigError("graph: joined rows need a text and its code")
            both = map(self._joiner, batch.query, batch.positive)
            return replace(batch, query=[self._row(row) for row in both], positive=None)
        made = {
            name: list(map(self._row, batch.columns.get(name, []))) for name in self.config.code
        }
        return replace(
            batch,
            query=made.get("query", batch.query),
            positive=made.get("positive", batch.positive) or None,
        )

    def _row(self, row: Row) -> Row:
        ids = torch.tensor(row.input_ids)
        ((start, stop),) = row.spans.get("code", [(0, len(ids))])
        graph = self._graphs.get(row.input_ids[start:stop], self._graph)
        nodes = [row.input_ids[start + subwords[0]] for subwords in graph.subwords]
        t, n = len(ids), len(nodes)
        places = torch.cat([torch.arange(t), torch.full((n,), self._place)])
        seen = graph_attention(graph, torch.isin(ids, self._special), start)
        spans = {"code": [(start, stop)], "given": [(t, t + n)]}
        spans["unpooled"] = [*row.spans.get("unpooled", []), (t, t + n)]
        extras = {**row.extras, "positions": places, "seen": seen}
        made = {**row.spans, **spans}
        return replace(
            row, input_ids=row.input_ids + nodes, tokens=t + n, extras=extras, spans=made
        )

    def _graph(self, ids: list[int]) -> FlowGraph:
        return flow_graph(*code_of(self._tokenizer, ids, self._language), self.config.nodes)

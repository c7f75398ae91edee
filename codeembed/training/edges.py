"""Edges of the syntax tree between the tokens of its sequence (SynCoBERT, Wang et al., 2021)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from codeembed.training.config import CodeTaskConfig
from codeembed.training.graph_heads import EdgeTask, PairWork
from codeembed.training.reading import SEPARATOR, Remembered, code_of, decoded, parsed_language
from codeembed.transform.tree import Code
from codeembed.views.flatten import linearise, linearised_parents
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import Work

__all__ = ["TreeEdges", "asked_pairs", "nodes_of"]

Nodes = list[tuple[int, int]]
"""By node its first subword, and the place of its parent in this list; -1 for the root's."""


class TreeEdges(EdgeTask):
    """Is this node the parent of that one? Asked of every edge, and of as many other pairs.

    Rows begin with a code, a separator and the sequence of its tree, as the views ``code`` and
    ``ast`` with ``separator: "\\x1e"`` make them. A row that was cut inside its code has no edges;
    one cut behind it has those of the nodes that are left. A node is read at its first subword.
    """

    def __init__(self, config: CodeTaskConfig) -> None:
        super().__init__(config)
        self._language = parsed_language(config.language)
        self._nodes: Remembered[Nodes] = Remembered()

    def work(self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator) -> Work:
        """As :meth:`TokenTask.work`."""
        batch = encoder.collate(rows)
        pairs, labels = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        start = 0
        for row in rows:
            read = partial(self._read, encoder.tokenizer)
            found, same = asked_pairs(self._nodes.get(row.input_ids, read), generator)
            pairs.append(found + start)
            labels.append(same)
            start += row.tokens
        device = batch.ids.device
        return PairWork(batch, torch.cat(labels).to(device), pairs=torch.cat(pairs).to(device))

    def _read(self, tokenizer: Any, ids: list[int]) -> Nodes:
        code, spans = code_of(tokenizer, ids, self._language)
        return nodes_of(code, decoded(tokenizer, ids)[0], spans)


def nodes_of(code: Code, text: bytes, spans: Sequence[tuple[int, int]]) -> Nodes:
    """The nodes of a tree whose sequence stands behind its code in a text.

    Args:
        text: The code, a separator, and the sequence, which may be cut off, or followed by
            another separator and anything else.
        spans: Byte spans of the subwords in the text.
    """
    pieces = [piece.encode() for piece in linearise(code)]
    shown = text[len(code.text) + 1 :].partition(SEPARATOR.encode())[0]
    if not shown or not b" ".join(pieces).startswith(shown):
        return []
    ends = [end for _, end in spans]
    found: Nodes = []
    at, last = len(code.text) + 1, len(code.text) + 1 + len(shown)
    for piece, parent in zip(pieces, linearised_parents(code), strict=True):
        if at >= last:
            break
        found.append((bisect_right(ends, at), parent))
        at += len(piece) + 1
    return found


def asked_pairs(nodes: Nodes, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Every edge, and for each a node that is drawn in the parent's place, unless it is right.

    Returns:
        ``(m, 2)`` int64 pairs of subwords, and ``(m,)`` int64 whether each is an edge.
    """
    places, parents = torch.tensor(nodes, dtype=torch.int64).reshape(-1, 2).T
    count = max(len(nodes), 1)
    children = torch.arange(1, count)  # the first node is the root
    above = parents[children]
    drawn = torch.randint(count, children.shape, generator=generator)
    wrong = (drawn != children) & (drawn != above) & (parents[drawn] != children)
    pairs = torch.cat(
        [
            torch.stack([places[above], places[children]], dim=1),
            torch.stack([places[drawn], places[children]], dim=1)[wrong],
        ]
    )
    return pairs, (torch.arange(len(pairs)) < len(children)).long()

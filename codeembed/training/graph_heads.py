"""GraphCodeBERT's pre-training: which edges of the graph were hidden from attention?

Guo et al., 2021: a fifth of a row's variables are drawn, their edges to other variables (``flow``)
or to tokens of the code (``alignment``) are hidden, and ``sigmoid(h_i h_j)`` has to tell them from
as many pairs without an edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from codeembed.training.config import CodeTaskConfig
from codeembed.training.objectives import edge_loss, scaled
from mmembed.errors import ConfigError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import TokenTask, Work

__all__ = ["EdgeTask", "GraphHead", "PairWork", "hidden_edges"]

_SHARE = 0.2
_OTHERS: Mapping[str, str] = {"flow": "given", "alignment": "code"}
"""The span that edges of a head lead to."""


@dataclass(frozen=True, slots=True)
class PairWork(Work):
    """Work whose labels are of pairs of tokens.

    Attributes:
        pairs: ``(labels, 2)`` int64.
    """

    pairs: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.int64))


def hidden_edges(seen: Tensor, drawn: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention without the edges between drawn nodes and others, either way.

    Args:
        seen: ``(t, t)`` bool by query and key.
        drawn: ``(t,)`` bool.
        others: ``(t,)`` bool.

    Returns:
        ``(t, t)`` bool each: what is still seen; the edges that are hidden; and pairs of the same
        kind between which there is none.
    """
    asked = drawn[:, None] & others
    asked = (asked | asked.T) & ~torch.eye(len(seen), dtype=torch.bool)
    edges = seen & asked
    return seen & ~asked, edges, asked & ~(edges | edges.T)


class EdgeTask(TokenTask):
    """Which of some pairs of tokens have an edge? Told by dot products of their states."""

    def __init__(self, config: CodeTaskConfig) -> None:
        nn.Module.__init__(self)
        self.config: Any = config

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        assert isinstance(work, PairWork)
        hidden = encoder.read(work.batch).hidden
        return edge_loss(scaled(hidden), work.pairs, work.labels, work.factor)


class GraphHead(EdgeTask):
    """Edges of the stage's graph, predicted from states that were made without them."""

    def work(
        self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator
    ) -> PairWork:
        """As :meth:`TokenTask.work`.

        Raises:
            ConfigError: the column has no graph.
        """
        batch = encoder.collate(rows)
        if "given" not in batch.spans:
            raise ConfigError(f"head {self.config.head}: column {self.config.column} has no graph")
        nodes = batch.spans["given"].cpu().split(batch.lengths)
        others = batch.spans[_OTHERS[self.config.head]].cpu().split(batch.lengths)
        masks, pairs, labels, start = [], [], [], 0
        for mask, own, other in zip(batch.seen, nodes, others, strict=True):
            assert mask is not None
            places = own.nonzero().squeeze(1)
            order = torch.randperm(len(places), generator=generator)
            drawn = torch.zeros_like(own)
            drawn[places[order[: math.ceil(_SHARE * len(places))]]] = True
            seen, edges, empty = hidden_edges(mask.cpu(), drawn, other)
            right, wrong = edges.nonzero(), empty.nonzero()
            wrong = wrong[torch.randperm(len(wrong), generator=generator)[: len(right)]]
            masks.append(seen.to(mask.device))
            pairs += [start + right, start + wrong]
            labels += [torch.ones(len(right)), torch.zeros(len(wrong))]
            start += len(own)
        device = batch.ids.device
        return PairWork(
            replace(batch, seen=masks),
            torch.cat(labels).long().to(device),
            pairs=torch.cat(pairs).to(device),
        )

"""Locality preservation (SBERT-LP, Min et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, unit
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["LocalityPreservation"]


@dataclass(frozen=True)
class LocalityPreservation:
    """Keep the neighbours that sentences have in a frozen model's space.

    ``L = sum_ij W_ij |e_i - e_j|^2 / sum_ij W_ij`` over unit vectors ``e``, with heat-kernel
    weights ``W_ij = exp(-|g_i - g_j|^2 / bandwidth)`` between each query and its ``neighbours``
    nearest queries by the guide's vectors ``g``, made symmetric by the larger of both. This is the
    objective of locality preserving projections (He and Niyogi 2003), on which SBERT-LP rests;
    alone it collapses, so it is meant as one part of a joint objective.
    """

    neighbours: int = 5
    bandwidth: float = 1.0

    name: ClassVar[str] = "locality"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """Over the queries of all processes."""
        if "query" not in columns.guide:
            raise ConfigError("locality preservation needs a guide's query vectors")
        query = unit(dense_of(columns.query))
        shard = shard_of(len(query), query.device)
        every = gather(query, shard)
        guide = gather(unit(dense_of(columns.guide["query"])).detach(), shard).to(every.dtype)
        mine = slice(shard.start, shard.start + shard.rows)
        distances = (2 - 2 * guide @ guide.T).clamp_min(0).fill_diagonal_(torch.inf)
        k = min(self.neighbours, shard.total - 1)
        if k < 1:
            raise ConfigError("locality preservation needs two queries at least")
        near = distances.topk(k, dim=1, largest=False)
        graph = torch.zeros_like(distances)
        graph.scatter_(1, near.indices, (-near.values / self.bandwidth).exp())
        graph = torch.maximum(graph, graph.T)
        squared = 2 - 2 * query @ every.T
        share = shard.world / graph.sum().clamp_min(1e-12)
        return loss_of(self.name, (graph[mine] * squared).sum() * share)

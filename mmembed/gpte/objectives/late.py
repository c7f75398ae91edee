"""Dense scores taught by late interaction (jina-embeddings-v4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, positive_of, unit
from mmembed.gpte.objectives.candidates import collect, head_of, multi_of
from mmembed.gpte.objectives.multivector import maxsim
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["LateToDense"]


@dataclass(frozen=True)
class LateToDense:
    """KL divergence of the dense scores' distribution over the batch from the late ones'.

    ``mean_i KL(softmax(sg(late_i) / T) || softmax(dense_i / T))`` over all documents of the batch,
    hard negatives included; ``late`` is MaxSim averaged over the query's tokens (Guenther et al.
    2025, which leaves the temperature and the direction of the gradient unsaid).

    Attributes:
        temperature: of both scores.
    """

    temperature: float = 0.02

    name: ClassVar[str] = "late_to_dense"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' queries."""
        dense_of(columns.query)
        positive_of(columns)
        dense = collect(columns, "dense", ("positive", "negative"), facts=False)
        late = collect(columns, "multi", ("positive", "negative"), facts=False)
        query = unit(head_of(dense.rows["query"], "dense"))
        student = torch.cat(
            [query @ unit(head_of(one, "dense")).T for one in dense.columns.values()], dim=1
        )
        with torch.no_grad():
            asked = multi_of(late.rows["query"])
            teacher = torch.cat(
                [maxsim(*asked, *multi_of(one), mean=True) for one in late.columns.values()], dim=1
            )
            target = (teacher / self.temperature).log_softmax(dim=1)
        found = (student / self.temperature).log_softmax(dim=1)
        rows = (target.exp() * (target - found)).sum(dim=1)
        return loss_of(self.name, rows.sum() * dense.shard.factor)

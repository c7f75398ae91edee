"""Further hard negatives, made of the vectors of those that a query has (KaLM-Embedding-V2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import Learnable, dense_of, loss_of, meta, unit
from mmembed.gpte.protocols import Columns, Loss, Objective, Outputs

__all__ = ["MixedNegatives"]

_NO_HASH = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class MixedNegatives:
    """A loss over a query's hard negatives and mixtures of them (Zhao et al. 2025).

    A pair's mixture is ``l d_a + (1 - l) d_b`` of two different negatives of the query, drawn at
    random, with ``l`` of Beta(alpha, alpha). A list's is ``sum_k w_k d_k`` over all of them, with
    ``w = softmax(q.d / list_temperature)``, so that the hardest weigh most. All are unit vectors,
    weights carry no gradient, and what is drawn depends on the step and on the query's text, not
    on the process that holds it.

    Attributes:
        objective: the loss of the longer list.
        pairs: mixtures of two for each query.
        lists: whether to add the mixture of all.
        alpha: of the Beta distribution; 1 draws evenly, larger ones stay near the middle.
    """

    objective: Objective
    pairs: int = 1
    lists: bool = True
    alpha: float = 2.0
    list_temperature: float = 0.05

    name: ClassVar[str] = "mixed_negatives"

    def __post_init__(self) -> None:
        if self.pairs < 0 or not (self.pairs or self.lists):
            raise ConfigError("mixed negatives: give pairs of 1 or more, or lists")
        if not self.alpha > 0 or not self.list_temperature > 0:
            raise ConfigError("mixed negatives: alpha and list_temperature are positive")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """Those of the loss."""
        inner = self.objective
        return inner.parameters(width) if isinstance(inner, Learnable) else {}

    def __call__(self, columns: Columns) -> Loss:
        """The loss, over the query's negatives and then the mixtures."""
        loss = self.objective(self.mixed(columns))
        return loss_of(self.name, loss.total, loss.parts)

    def mixed(self, columns: Columns) -> Columns:
        """The columns with ``pairs + lists`` more negatives for each query.

        A guide's vectors are mixed alike. Teacher's scores are left as they are.

        Raises:
            ConfigError: there are fewer than two negatives a query.
        """
        k = columns.negatives_per_query
        if columns.negative is None or k < 2:
            raise ConfigError("mixed negatives: give every query two hard negatives or more")
        query = unit(dense_of(columns.query))
        own = unit(dense_of(columns.negative)).view(len(query), k, -1)
        parts = [torch.eye(k).to(own).expand(len(own), k, k)]
        if self.pairs:
            parts.append(self._pairs(columns, k).to(own))
        if self.lists:
            scores = torch.einsum("nd,nkd->nk", query.detach(), own.detach())
            parts.append((scores / self.list_temperature).softmax(dim=1).unsqueeze(1))
        weights = torch.cat(parts, dim=1)
        guide = dict(columns.guide)
        if "negative" in guide:
            judged = unit(dense_of(guide["negative"])).view(len(own), k, -1)
            guide["negative"] = Outputs(dense=(weights.to(judged) @ judged).flatten(0, 1))
        more = weights.shape[1] - k
        facts = dict(columns.meta)
        # A mixture is no text, so nothing is its duplicate; its modality is the first negative's.
        for name, filling in (("negative_hash", _NO_HASH), ("negative_modality", None)):
            if name in facts:
                known = facts[name].view(-1, k)
                new = known[:, :1].expand(-1, more)
                new = new if filling is None else torch.full_like(new, filling)
                facts[name] = torch.cat([known, new], dim=1).flatten()
        return replace(
            columns,
            negative=Outputs(dense=F.normalize(weights @ own, dim=-1).flatten(0, 1)),
            negatives_per_query=k + more,
            meta=facts,
            guide=guide,
        )

    def _pairs(self, columns: Columns, k: int) -> Tensor:
        """``(n, pairs, k)`` shares of a query's negatives in its mixtures of two."""
        hashes = meta(columns, "query_hash", "mixing negatives").tolist()
        step = int(columns.shared.get("step", torch.tensor(0)))
        weights = np.zeros((len(hashes), self.pairs, k))
        for row, name in enumerate(hashes):
            random = np.random.default_rng([step, name % 2**64])
            for pair in range(self.pairs):
                first, second = random.choice(k, 2, replace=False)
                share = random.beta(self.alpha, self.alpha)
                weights[row, pair, first], weights[row, pair, second] = share, 1.0 - share
        return torch.from_numpy(weights)

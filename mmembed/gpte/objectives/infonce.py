"""InfoNCE and its relatives: from a row's logits to the row's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.objectives.masks import SoftMask
from mmembed.gpte.objectives.weights import Logits

__all__ = ["HardestSoftplus", "InfoNCE", "RankingHinge"]


@dataclass(frozen=True)
class InfoNCE(Contrastive):
    """``-log softmax`` of the positive among its candidates (van den Oord et al. 2018).

    ``L_i = -(s_ii - m) / t + log sum_j w_ij exp(s_ij / t)`` over the candidates that no mask drops,
    where the positive's own term carries the margin ``m`` too. With the defaults this is the loss
    of SimCSE, E5 and BGE; with four directions that of GTE; with ``ThresholdMask`` and
    ``DuplicateMask`` that of Qwen3-Embedding; with ``GuideMask`` GISTEmbed; with directions
    ``(q2d, d2q)`` apart CLIP's.

    Attributes:
        focal: weigh each row by ``(1 - p_i) ** focal`` without gradient, where ``p_i`` is the
            positive's probability (focal loss, Lin et al. 2017; KaLM-v2); 0 turns it off.
    """

    focal: float = 0.0

    name: ClassVar[str] = "infonce"

    @property
    def fusible(self) -> bool:
        """As :attr:`Contrastive.fusible`."""
        changed = self.focal or self.margin or self.hardest or self.weights is not None
        return not changed and not any(isinstance(mask, SoftMask) for mask in self.masks)

    def reduce(self, logits: Logits) -> Tensor:
        """As :meth:`Contrastive.reduce`."""
        losses = F.cross_entropy(logits.values, logits.positive, reduction="none")
        if self.focal:
            losses = losses * (1.0 - (-losses.detach()).exp()).clamp_min(0.0) ** self.focal
        return losses


@dataclass(frozen=True)
class RankingHinge(Contrastive):
    """``mean_j max(0, margin - s_ii + s_ij)`` over the row's negatives; the temperature is unused.

    With ``in_batch=False`` it is the triplet loss of cosines (Schroff et al. 2015).
    """

    margin: float = 0.2
    temperature: float = 1.0

    name: ClassVar[str] = "hinge"

    def reduce(self, logits: Logits) -> Tensor:
        """As :meth:`Contrastive.reduce`; the positive already carries ``-margin``."""
        positive = logits.values.gather(1, logits.positive[:, None])
        negatives = logits.negatives()
        kept = negatives != -torch.inf
        losses = F.relu(negatives.masked_fill(~kept, 0.0) - positive) * kept
        return losses.sum(dim=1) / kept.sum(dim=1).clamp_min(1)


@dataclass(frozen=True)
class HardestSoftplus(Contrastive):
    """``softplus((max_j s_ij - s_ii) / t)``: the pairwise loss of ColPali (Faysse et al. 2024)."""

    name: ClassVar[str] = "hardest_softplus"

    def reduce(self, logits: Logits) -> Tensor:
        """As :meth:`Contrastive.reduce`."""
        positive = logits.values.gather(1, logits.positive[:, None])[:, 0]
        return F.softplus(logits.negatives().amax(dim=1) - positive)

"""The pairwise sigmoid loss of SigLIP (Zhai et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.objectives.weights import Logits

__all__ = ["Sigmoid"]


@dataclass(frozen=True)
class Sigmoid(Contrastive):
    """``-sum_j log sigmoid(z_ij (s_ij / t + b))``, ``z = 1`` for the pair and -1 elsewhere.

    Every pair is judged on its own, so nothing is normalised over the batch.

    Attributes:
        bias: ``b``, or its start value where the temperature is learned with it.
    """

    temperature: float = 0.1
    learn_temperature: bool = True
    max_scale: float = math.inf  # published ones end above CLIP's 100
    bias: float = -10.0

    name: ClassVar[str] = "sigmoid"

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The logarithm of the scale and the bias, if they are learned."""
        found = super().parameters(width)
        return found | {"bias": torch.tensor(self.bias)} if found else {}

    def reduce(self, logits: Logits) -> Tensor:
        """As :meth:`Contrastive.reduce`."""
        bias = logits.learned.get("bias", self.bias)
        positive = logits.values.gather(1, logits.positive[:, None])[:, 0]
        return F.softplus(logits.negatives() + bias).sum(dim=1) + F.softplus(-positive - bias)

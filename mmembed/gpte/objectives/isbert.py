"""Mutual information between a sentence and its parts (IS-BERT, Zhang et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, wide
from mmembed.gpte.protocols import Columns, Loss
from mmembed.gpte.states import row_ids

__all__ = ["LocalGlobalInformation"]


@dataclass(frozen=True)
class LocalGlobalInformation:
    """The Jensen-Shannon estimate of I(token; sentence), negated.

    With ``T = <token, sentence>``, ``L = E_other[softplus(T)] + E_own[softplus(-T)] - 2 log 2``,
    where a token's own sentence is a sample of the joint distribution and all other sentences of
    the batch are samples of the product of marginals (Nowozin et al. 2016; Hjelm et al. 2019).
    Local features are the encoder's token states and the global one is its pooled vector, so both
    must have the same width; the paper puts a small convolution between the two.
    """

    name: ClassVar[str] = "isbert"
    reads_states: ClassVar[bool] = True

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """Normalised by the (token, sentence) pairs of all processes."""
        states = columns.query.states
        if states is None:
            raise ConfigError("IS-BERT reads token states, and the encoder gives none")
        local = wide(states.hidden)
        shard = shard_of(len(states), local.device)
        sentences = gather(dense_of(columns.query), shard)
        if local.shape[1] != sentences.shape[1]:
            raise ConfigError(
                f"token states have {local.shape[1]} dimensions and sentences {sentences.shape[1]}"
            )
        tokens = shard_of(len(local), local.device)
        if shard.total < 2:
            raise ConfigError("IS-BERT needs two sentences at least")
        scores = local @ sentences.T
        own = (row_ids(states.offsets) + shard.start)[:, None]
        of_own = scores.gather(1, own)
        joint = tokens.mean(F.softplus(-of_own))
        others = F.softplus(scores).sum() - F.softplus(of_own).sum()
        marginal = torch.as_tensor(others * tokens.factor / (shard.total - 1))
        return loss_of(self.name, joint + marginal - 2 * math.log(2))

"""Keep a mixture's experts equally busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import global_sum
from mmembed.gpte.objectives.base import full_precision, loss_of
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["ExpertBalance"]


@dataclass(frozen=True)
class ExpertBalance:
    """``count * sum_e f_e P_e``, mean over layers (Fedus et al. 2022, Switch Transformers).

    ``f_e`` is the share of all choices that fell on expert ``e``, without gradient, and ``P_e`` the
    mean of the router's probabilities, over the tokens of all columns and processes. It is 1 where
    all experts are equally busy. Rows carry their sums, so chunks of a gradient cache add up.
    """

    name: ClassVar[str] = "balance"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The loss of the whole batch, the same on every process.

        Raises:
            ConfigError: the encoder has no experts.
        """
        outputs = (columns.query, columns.positive, columns.negative)
        found = [one.routing for one in outputs if one is not None and one.routing is not None]
        if not found:
            raise ConfigError("balancing needs an encoder with experts: set settings.experts")
        sums = global_sum(torch.stack([one.sum(dim=0) for one in found]).sum(dim=0))
        likely, chosen = sums.unbind(dim=1)  # (layers, count)
        share = (chosen / chosen.sum(dim=1, keepdim=True)).detach()
        mean = likely / likely.sum(dim=1, keepdim=True)
        total = (likely.shape[1] * (share * mean).sum(dim=1)).mean()
        return loss_of(self.name, total)

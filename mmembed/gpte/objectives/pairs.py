"""Losses of rerankers, whose output for a pair is one logit instead of a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import shard_of
from mmembed.gpte.objectives.base import dense_of, full_precision, loss_of, meta, wide
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["PairBinary", "PairDistillation", "PairLikelihood", "PairSoftmax"]


def _logits(columns: Columns, why: str, least: int) -> Tensor:
    """``(n, 1 + k)`` logits of each query's positive pair, then of its negative ones.

    Raises:
        ConfigError: the queries have fewer negatives than the loss needs.
    """
    k = columns.negatives_per_query
    if k < least:
        raise ConfigError(f"{why} compares pairs: give every query a negative")
    first = wide(dense_of(columns.query))[:, :1]
    if columns.negative is None or not k:
        return first
    return torch.cat([first, wide(dense_of(columns.negative))[:, 0].view(-1, k)], dim=1)


def _mean(name: str, rows: Tensor, columns: Columns) -> Loss:
    shard = shard_of(len(rows), rows.device, same=columns.negatives_per_query)
    return loss_of(name, shard.mean(rows))


@dataclass(frozen=True)
class PairBinary:
    """Every pair judged alone: ``-log sigmoid(z)`` of the positive, ``-log sigmoid(-z)`` of others.

    The matching loss of BLIP (Li et al. 2022), and of a yes/no reranker, whose logit is the
    log-odds of the two words (Qwen3-Reranker). The pairs of a query are averaged.
    """

    name: ClassVar[str] = "pair_binary"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' queries; column 0 of ``dense`` holds the logits."""
        logits = _logits(columns, "the binary loss of pairs", 0)
        target = torch.zeros_like(logits)
        target[:, 0] = 1.0
        rows = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
        return _mean(self.name, rows, columns)


@dataclass(frozen=True)
class PairSoftmax:
    """``-log softmax`` of the positive's logit among those of the query's own pairs (RankT5's
    softmax loss, Zhuang et al. 2022).
    """

    name: ClassVar[str] = "pair_softmax"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """As :meth:`PairBinary.__call__`."""
        logits = _logits(columns, "the softmax loss of pairs", 1)
        return _mean(self.name, -logits.log_softmax(dim=1)[:, 0], columns)


@dataclass(frozen=True)
class PairLikelihood:
    """Minus the score of the positive pair, where scores are log-likelihoods: the captioning loss
    of CoCa (Yu et al. 2022), by :class:`mmembed.backbones.towers.coca.CocaTowers`.
    """

    name: ClassVar[str] = "pair_likelihood"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """As :meth:`PairBinary.__call__`; negatives are not looked at."""
        return _mean(self.name, -_logits(columns, "the likelihood of pairs", 0)[:, 0], columns)


@dataclass(frozen=True)
class PairDistillation:
    """KL divergence from a teacher's distribution over the query's pairs to the model's.

    Attributes:
        temperature: of the model's logits.
        teacher_temperature: of the teacher's scores.
    """

    temperature: float = 1.0
    teacher_temperature: float = 1.0

    name: ClassVar[str] = "pair_kl"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """As :meth:`PairBinary.__call__`."""
        logits = _logits(columns, "distillation of pairs", 1)
        teacher = wide(meta(columns, "teacher", "distillation of pairs")).detach()
        if teacher.shape != logits.shape:
            raise ConfigError(
                f"distillation of pairs scores {tuple(logits.shape)} pairs (queries, 1 + "
                f"negatives) and the teacher {tuple(teacher.shape)}"
            )
        target = (teacher / self.teacher_temperature).log_softmax(dim=1)
        found = (logits / self.temperature).log_softmax(dim=1)
        rows = F.kl_div(found, target, reduction="none", log_target=True).sum(dim=1)
        return _mean(self.name, rows, columns)

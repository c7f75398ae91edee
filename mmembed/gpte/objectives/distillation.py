"""Learning from a teacher: its scores, its margins, its vectors, or one's own better heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.objectives.base import (
    dense_of,
    full_precision,
    loss_of,
    meta,
    positive_of,
    shared,
    unit,
    wide,
)
from mmembed.gpte.objectives.scoring import Score, own_scores
from mmembed.gpte.onednn import matmul_nt
from mmembed.gpte.protocols import Columns, Loss, Outputs
from mmembed.gpte.score_engine import Block, score_loss

__all__ = ["EmbeddingDistillation", "KLDistillation", "MarginMSE", "SimilarityDistillation"]


def _teacher(columns: Columns, scores: Tensor, why: str) -> Tensor:
    found = wide(meta(columns, "teacher", why)).detach()
    if found.shape != scores.shape:
        raise ConfigError(
            f"{why} scores {tuple(scores.shape)} candidates (queries, 1 + negatives) and the "
            f"teacher {tuple(found.shape)}"
        )
    if scores.shape[1] < 2:
        raise ConfigError(f"{why} compares candidates: give every query a negative")
    return found


@dataclass(frozen=True)
class KLDistillation:
    """KL divergence of the student's from the teacher's distribution over own candidates.

    ``KL(softmax(t / T_t) || softmax(s / T)) * T^2``, mean over queries (Hinton et al. 2015; Lin et
    al. 2020). The factor keeps gradients comparable between temperatures.

    Attributes:
        temperature: ``T`` of the student.
        teacher_temperature: ``T_t``; None for the student's.
        symmetric: the mean of both directions of the divergence (UniME-V2).
        squared: multiply by ``T^2``.
    """

    temperature: float = 1.0
    teacher_temperature: float | None = None
    score: Score = "cosine"
    symmetric: bool = False
    squared: bool = True

    name: ClassVar[str] = "kl"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' queries."""
        scores = own_scores(columns, self.score)
        student = (scores / self.temperature).log_softmax(dim=1)
        teacher = _teacher(columns, scores, "distillation by KL")
        teacher = (teacher / (self.teacher_temperature or self.temperature)).log_softmax(dim=1)
        rows = _kl(teacher, student)
        if self.symmetric:
            rows = (rows + _kl(student, teacher)) / 2
        if self.squared:
            rows = rows * self.temperature**2
        shard = shard_of(len(rows), rows.device, same=columns.negatives_per_query)
        return loss_of(self.name, shard.mean(rows))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """``(n,)`` divergences KL(p || q) of log-probabilities ``(n, c)``."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1)


@dataclass(frozen=True)
class MarginMSE:
    """``((s_pos - s_neg) - (t_pos - t_neg))^2`` on raw dot products (Hofstaetter et al. 2021).

    Normalised scores cannot reach a cross-encoder's margins, hence the dot product.
    """

    score: Score = "dot"

    name: ClassVar[str] = "margin_mse"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' (query, negative) pairs."""
        scores = own_scores(columns, self.score)
        teacher = _teacher(columns, scores, "MarginMSE")
        margins = scores[:, :1] - scores[:, 1:]
        rows = (margins - (teacher[:, :1] - teacher[:, 1:])).square().mean(dim=1)
        shard = shard_of(len(rows), rows.device, same=columns.negatives_per_query)
        return loss_of(self.name, shard.mean(rows))


@dataclass(frozen=True)
class EmbeddingDistillation:
    """Match the vectors of a frozen teacher, column by column.

    The teacher's vectors are the guide's, ``Columns.guide``, for whichever of query, positive and
    negative it has. A translation may be taught the vector of its source instead (Reimers and
    Gurevych 2020): the query is the source, and ``teaches`` is ``query``.

    Attributes:
        distance: ``mse`` over all entries, ``l2`` norm, or ``cosine`` distance.
        teacher_width: learn a projection of the student to this width, where the widths differ.
        teaches: whose vector of the teacher's each column learns: its own, or the query's.
    """

    distance: Literal["mse", "l2", "cosine"] = "mse"
    teacher_width: int | None = None
    teaches: Literal["own", "query"] = "own"

    name: ClassVar[str] = "embedding_kd"

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The projection ``(teacher_width, width)``, if one is wanted."""
        if self.teacher_width is None:
            return {}
        start = torch.empty(self.teacher_width, width)
        torch.nn.init.orthogonal_(start)
        return {"teacher_projection": start}

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over columns of the means over all processes' rows."""
        students = {
            "query": columns.query,
            "positive": columns.positive,
            "negative": columns.negative,
        }
        losses = [
            self._column(columns, student, columns.guide[source])
            for name, student in students.items()
            for source in [name if self.teaches == "own" else "query"]
            if student is not None and source in columns.guide
        ]
        if not losses:
            raise ConfigError("embedding distillation needs a guide's vectors, and there are none")
        return loss_of(self.name, torch.stack(losses).mean())

    def _column(self, columns: Columns, outputs: Outputs, guide: Outputs) -> Tensor:
        student, teacher = dense_of(outputs), dense_of(guide).detach()
        if self.teacher_width is not None:
            student = student @ wide(shared(columns, "teacher_projection", "a projection")).T
        if student.shape != teacher.shape:
            raise ConfigError(
                f"the student's vectors are {tuple(student.shape)} and the teacher's "
                f"{tuple(teacher.shape)}; set teacher_width to learn a projection"
            )
        if self.distance == "mse":
            rows = (student - teacher).square().mean(dim=1)
        elif self.distance == "l2":
            rows = torch.linalg.vector_norm(student - teacher, dim=1)
        else:
            rows = 1 - (unit(student) * unit(teacher)).sum(dim=1)
        return shard_of(len(rows), rows.device).mean(rows)


@dataclass(frozen=True)
class SimilarityDistillation:
    """KL between the teacher's and the student's similarities over the whole batch (UniME).

    Gu et al. 2025, stage 1: row ``i`` is a softmax of query ``i`` against all positives. The
    teacher's vectors are the guide's; its width need not be the student's.
    """

    temperature: float = 0.02
    teacher_temperature: float | None = None

    name: ClassVar[str] = "similarity_kd"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' queries."""
        if not {"query", "positive"} <= set(columns.guide):
            raise ConfigError("similarity distillation needs a guide's query and positive vectors")
        query = unit(dense_of(columns.query))
        shard = shard_of(len(query), query.device)
        documents = unit(gather(dense_of(positive_of(columns)), shard))
        guide = unit(dense_of(columns.guide["query"])).detach()
        guides = unit(gather(dense_of(columns.guide["positive"]).detach(), shard))
        softness = self.teacher_temperature or self.temperature

        def rows_of(scores: Sequence[Tensor], rows: slice, _: Sequence[Tensor]) -> Tensor:
            teacher = (matmul_nt(guide[rows], guides) / softness).log_softmax(dim=1)
            return _kl(teacher, (scores[0] / self.temperature).log_softmax(dim=1))

        total, _ = score_loss(rows_of, [Block(query, documents)])
        return loss_of(self.name, total * shard.factor)

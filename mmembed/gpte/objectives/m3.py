"""The two distillations of BGE-M3 (Chen et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import full_precision, loss_of, unit
from mmembed.gpte.objectives.candidates import Head, collect, head_of, multi_of
from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.objectives.multivector import maxsim
from mmembed.gpte.objectives.weights import Logits
from mmembed.gpte.protocols import Columns, Loss

__all__ = ["M3Distillation", "M3SelfDistillation"]


@dataclass(frozen=True)
class M3Distillation(Contrastive):
    """``sum_k t_k * CE(candidate k)``, where own candidates before ``k`` do not compete with it.

    ``t`` is the softmax of the teacher's scores of the positive and the hard negatives
    (``Columns.meta["teacher"]``); all other documents of the batch are negatives throughout.

    Attributes:
        teacher_temperature: divides the teacher's scores.
    """

    temperature: float = 0.02
    teacher_temperature: float = 1.0

    name: ClassVar[str] = "m3_kd"

    def reduce(self, logits: Logits) -> Tensor:
        """As :meth:`Contrastive.reduce`."""
        own = logits.own()
        if logits.teacher is None or logits.teacher.shape != own.shape:
            raise ConfigError(
                f"M3 distillation needs 'teacher' scores of shape (queries, {own.shape[1]})"
            )
        target = (logits.teacher.to(logits.values.dtype) / self.teacher_temperature).softmax(dim=1)
        values = logits.values.gather(1, own)
        others = logits.values.scatter(1, own, -torch.inf).logsumexp(dim=1, keepdim=True)
        later = values.flip(1).logcumsumexp(dim=1).flip(1)  # candidate k and those after it
        if self.in_batch:
            later = torch.logaddexp(others, later)
        return (target * (later - values)).sum(dim=1)


@dataclass(frozen=True)
class M3SelfDistillation:
    """InfoNCE of three heads and of their sum, and each head taught by the sum.

    With ``s = dense + 0.3 sparse + multi`` and ``lambda = (1, 0.1, 1)``:
    ``L = (sum_h lambda_h CE(s_h) + CE(s)) / 4``,
    ``L' = sum_h lambda_h CE(s_h, softmax(sg(s))) / 3``,
    and the loss is ``(L + L') / 2``; before ``start_step`` it is ``L``.

    Attributes:
        temperature: of every head's scores.
        score_weights: of dense, sparse and multi-vector scores in the sum.
        loss_weights: of the heads' losses.
        start_step: the step (``Columns.shared["step"]``) from which heads are taught.
    """

    temperature: float = 0.02
    score_weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    loss_weights: tuple[float, float, float] = (1.0, 0.1, 1.0)
    start_step: int = 0

    name: ClassVar[str] = "m3"

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' queries."""
        heads: tuple[Head, ...] = ("dense", "sparse", "multi")
        per_head = {head: self._scores(columns, head) for head in heads}
        own, factor = per_head["dense"][1:]
        scores = {head: found[0] for head, found in per_head.items()}
        together = sum(w * s for w, s in zip(self.score_weights, scores.values(), strict=True))
        assert isinstance(together, Tensor)
        students = dict[str, Tensor]({"sum": together}) | {str(h): s for h, s in scores.items()}
        hard = {
            head: -s.log_softmax(dim=1).gather(1, own).sum() * factor
            for head, s in students.items()
        }
        teacher = together.detach().softmax(dim=1)
        soft = {
            f"{head}_from_sum": -(teacher * s.log_softmax(dim=1)).sum() * factor
            for head, s in scores.items()
        }
        weighted = zip(self.loss_weights, heads, strict=True)
        total = (sum(w * hard[head] for w, head in weighted) + hard["sum"]) / 4
        step = columns.shared.get("step")
        if step is None or int(step) >= self.start_step:
            taught = zip(self.loss_weights, soft.values(), strict=True)
            total = (total + sum(w * part for w, part in taught) / 3) / 2
        assert isinstance(total, Tensor)
        return loss_of(self.name, total, {f"{self.name}/{k}": v for k, v in (hard | soft).items()})

    def _scores(self, columns: Columns, head: Head) -> tuple[Tensor, Tensor, float]:
        """``(n, c)`` logits of local queries, the ``(n, 1)`` positives' columns, the row factor."""
        found = collect(columns, head, ("positive", "negative"), facts=False)
        query = found.rows["query"]
        blocks = []
        for documents in found.columns.values():
            if head == "multi":
                scores = maxsim(*multi_of(query), *multi_of(documents), mean=True)
            elif head == "sparse":
                scores = head_of(query, head) @ head_of(documents, head).T
            else:
                scores = unit(head_of(query, head)) @ unit(head_of(documents, head)).T
            blocks.append(scores / self.temperature)
        shard = found.shard
        own = torch.arange(shard.start, shard.start + shard.rows, device=blocks[0].device)
        return torch.cat(blocks, dim=1), own[:, None], shard.factor

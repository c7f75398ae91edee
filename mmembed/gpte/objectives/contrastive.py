"""The frame of in-batch losses: which scores compete, and what may not compete.

A row is a local query, or its positive. Its candidates come in blocks (documents, hard negatives,
queries, queue), the blocks of one partition function are joined, masks drop false negatives,
weights raise hard ones, and a subclass turns the logits of each row into its loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import shard_of
from mmembed.gpte.objectives.base import full_precision, learned_scale, loss_of, shared, unit, wide
from mmembed.gpte.objectives.candidates import (
    Candidates,
    Head,
    Kind,
    View,
    collect,
    head_of,
    multi_of,
)
from mmembed.gpte.objectives.fused import fused_loss
from mmembed.gpte.objectives.masks import Mask, drop_any, soften
from mmembed.gpte.objectives.multivector import maxsim
from mmembed.gpte.objectives.scoring import Score, own_scores
from mmembed.gpte.objectives.weights import Logits, Weights
from mmembed.gpte.protocols import QUEUES, Columns, Loss
from mmembed.gpte.score_engine import Block, Prefixes, score_loss

__all__ = ["Contrastive", "Direction", "Score", "Table"]

Direction = Literal["q2d", "q2q", "d2q", "d2d"]

_HEADS: dict[Score, Head] = {
    "cosine": "dense",
    "dot": "dense",
    "sparse": "sparse",
    "maxsim": "multi",
    "mean_maxsim": "multi",
}
_POSITIVE_BLOCKS = (("query", "positive"), ("positive", "query"))
_BLOCKS: dict[Direction, tuple[Kind, tuple[Kind, ...]]] = {
    "q2d": ("query", ("positive", "negative", "queue")),
    "q2q": ("query", ("query",)),
    "d2q": ("positive", ("query", "query_queue")),
    "d2d": ("positive", ("positive", "negative")),
}


@dataclass(frozen=True)
class Contrastive(ABC):
    """Options that every in-batch loss shares.

    Attributes:
        temperature: scores are divided by it; the start value if it is learned.
        learn_temperature: learn its logarithm (CLIP); the scale is kept at ``max_scale`` or less.
        own_scale: start what is learned where the weights of a pretrained model left it, in place
            of the values here; an error if they bring none.
        score: cosine or dot product of dense vectors, dot product of sparse ones, or MaxSim of
            token vectors (summed, or averaged over the query's tokens).
        directions: what is scored: queries against documents (required, it holds the positive),
            queries against queries, documents against queries, documents against documents.
        partition: which directions share a softmax: all (``joint``, GTE and Qwen3), those with the
            same row (``side``, NT-Xent), or none (``direction``, CLIP). Several are averaged.
            Earlier batches' documents, and their queries where a queue keeps them, join those of
            ``q2d`` and of ``d2q``.
        repeat_positive: in a joint softmax, count the pair again where the document meets its own
            query. The pair is one term in the papers; sentence-transformers counts it twice.
        in_batch: False competes only against a query's own hard negatives (NV-Embed's second
            stage; classification data).
        hard_negatives: whether hard negatives compete for every query or for their own only.
        margin: subtracted from the positive's score.
        masks: drop false negatives.
        weights: raise some negatives.
        hardest: keep only this many of a row's best-scoring negatives, after the masks (UniME).
    """

    temperature: float = 0.05
    learn_temperature: bool = False
    own_scale: bool = False
    max_scale: float = 100.0
    score: Score = "cosine"
    directions: tuple[Direction, ...] = ("q2d",)
    partition: Literal["joint", "side", "direction"] = "joint"
    repeat_positive: bool = False
    in_batch: bool = True
    hard_negatives: Literal["all", "own"] = "all"
    margin: float = 0.0
    masks: tuple[Mask, ...] = ()
    weights: Weights | None = None
    hardest: int | None = None

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"a temperature is positive, not {self.temperature}")
        if self.own_scale and not self.learn_temperature:
            raise ConfigError("own_scale is where a learned temperature starts: learn_temperature")
        if "q2d" not in self.directions:
            raise ConfigError("directions must hold 'q2d', which is where the positive pair is")
        if self.partition == "direction" and {"q2q", "d2d"} & set(self.directions):
            raise ConfigError(
                "partition 'direction' needs the positive in every direction, and 'q2q' and 'd2d' "
                "do not hold it; use 'side' or 'joint'"
            )
        if self.partition == "side" and "d2d" in self.directions and "d2q" not in self.directions:
            raise ConfigError("partition 'side' with 'd2d' needs 'd2q', which holds the positive")
        if not self.in_batch and self.directions != ("q2d",):
            raise ConfigError("without in-batch negatives the only direction is 'q2d'")
        if not self.in_batch and self.masks:
            raise ConfigError("masks judge in-batch negatives, and in_batch is off")
        if self.hardest is not None and self.hardest < 1:
            raise ConfigError(f"hardest is at least 1, not {self.hardest}")

    @property
    def fusible(self) -> bool:
        """Whether a row's loss is the plain cross-entropy that there is a kernel for."""
        return False

    @abstractmethod
    def reduce(self, logits: Logits) -> Tensor:
        """``(r,)`` losses of rows from their candidates."""

    def parameters(self, width: int) -> dict[str, Tensor]:
        """The logarithm of the scale ``1 / temperature``, if it is learned."""
        return learned_scale(self.temperature, self.learn_temperature)

    @full_precision
    def __call__(self, columns: Columns) -> Loss:
        """The mean over all processes' rows."""
        total, sums = self._sums(columns, None)
        return loss_of(self.name, total, {self.name: sums[0]})

    @full_precision
    def over_prefixes(
        self, columns: Columns, dims: Sequence[int], weights: Sequence[float]
    ) -> Loss:
        """The weighted sum of the losses of the vectors' prefixes, in one pass over the scores.

        Args:
            dims: ascending.
            weights: one a prefix.
        """
        if self.score != "cosine":
            raise ConfigError(f"prefixes are scored by cosine, not by {self.score!r}")
        total, sums = self._sums(columns, Prefixes(tuple(dims), tuple(weights)))
        named = {f"{self.name}@{d}": part for d, part in zip(dims, sums, strict=True)}
        return loss_of(self.name, total, named)

    def _sums(self, columns: Columns, prefixes: Prefixes | None) -> tuple[Tensor, Tensor]:
        """The total, and each prefix's loss, as shares of the mean over all rows."""
        learned = {
            name: shared(columns, name, f"the {self.name} objective") for name in self.parameters(1)
        }
        teacher = columns.meta.get("teacher")
        if not self.in_batch:
            return self._own_sums(columns, prefixes, learned, teacher)
        kinds: dict[Kind, None] = {k: None for d in self.directions for k in _BLOCKS[d][1]}
        found = collect(columns, _HEADS[self.score], tuple(kinds), facts=bool(self.masks))
        table = Table(self, found, tuple(learned), teacher)
        if self.score in ("maxsim", "mean_maxsim"):
            scores = [
                maxsim(
                    *multi_of(found.rows[row]),
                    *multi_of(found.columns[column]),
                    mean=self.score == "mean_maxsim",
                )
                for row, column in table.blocks
            ]
            total = table.row_losses(scores, slice(0, found.shard.rows), [*learned.values()]).sum()
            sums = total.reshape(1)
        else:
            ready = unit if prefixes is None and self.score == "cosine" else wide
            blocks = [
                Block(
                    ready(head_of(found.rows[row], _HEADS[self.score])),
                    ready(head_of(found.columns[column], _HEADS[self.score])),
                )
                for row, column in table.blocks
            ]
            fused = fused_loss(table, blocks[0].rows.device)
            total, sums = score_loss(
                table.row_losses, blocks, [*learned.values()], prefixes, fused=fused
            )
        return total * found.shard.factor, sums * found.shard.factor

    def _own_sums(
        self,
        columns: Columns,
        prefixes: Prefixes | None,
        learned: Mapping[str, Tensor],
        teacher: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The same where a query meets its own candidates only."""
        sums = []
        for dim in prefixes.dims if prefixes else (None,):
            scores = own_scores(columns, self.score, dim)
            at = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
            logits = Logits(
                scores * self.scale(learned),
                [scores.detach()],
                at[:, 0],
                at[:, 1:],
                teacher,
                learned,
            )
            sums.append(self.reduce(self._weighed(logits)).sum())
        shard = shard_of(len(scores), scores.device, same=columns.negatives_per_query)
        parts = torch.stack(sums) * shard.factor
        return parts @ parts.new_tensor(prefixes.weights if prefixes else (1.0,)), parts

    def scale(self, learned: Mapping[str, Tensor]) -> Tensor | float:
        """What scores are multiplied by."""
        if not self.learn_temperature:
            return 1.0 / self.temperature
        log_scale = wide(learned["log_scale"])
        # The gradient passes the clamp, or a scale that once overshoots could never come back.
        kept = log_scale.detach().clamp(max=math.log(self.max_scale))
        return (log_scale + (kept - log_scale.detach())).exp()

    def _weighed(self, logits: Logits) -> Logits:
        """The finished logits: margin at the positive, few negatives, weights on them."""
        values = logits.values
        positive = logits.positive[:, None]
        if self.margin:
            shift = torch.zeros_like(values).scatter_(1, positive, -self.margin)
            values = values + shift * self.scale(logits.learned)
        if self.hardest is not None:
            negatives = logits.negatives().detach()
            least = negatives.topk(min(self.hardest, negatives.shape[1]), dim=1).values[:, -1:]
            values = values.masked_fill(
                (negatives < least).scatter_(1, positive, False), -torch.inf
            )
        if self.weights is not None:
            values = values + self.weights.log_weights(replace(logits, values=values))
        return replace(logits, values=values)


class Table:
    """Which blocks of scores a loss needs, and the losses of some rows from those blocks."""

    def __init__(
        self,
        loss: Contrastive,
        candidates: Candidates,
        learned: tuple[str, ...],
        teacher: Tensor | None,
    ) -> None:
        self.loss = loss
        self.candidates = candidates
        self.learned = learned
        self.teacher = teacher
        self.blocks: list[tuple[Kind, Kind]] = []
        groups: dict[str, list[int]] = {}
        # 'q2d' first: its first block holds the positives.
        for direction in sorted(loss.directions, key=lambda d: d != "q2d"):
            row, columns = _BLOCKS[direction]
            group = {"joint": "", "side": row, "direction": direction}[loss.partition]
            for column in columns:
                if column in candidates.columns:
                    groups.setdefault(group, []).append(len(self.blocks))
                    self.blocks.append((row, column))
        self.groups = [
            # The block with the positive leads its group.
            sorted(group, key=lambda b: self.blocks[b] not in _POSITIVE_BLOCKS)
            for group in groups.values()
        ]
        guides = [candidates.row_facts[kind].guide for kind in ("query", "positive")]
        self.guide: Tensor | None = None
        if guides[0] is not None and guides[1] is not None:
            self.guide = (guides[0] * guides[1]).sum(dim=1)

    def row_losses(
        self, scores: Sequence[Tensor], rows: slice, learned: Sequence[Tensor]
    ) -> Tensor:
        """``(r,)`` losses of the rows ``rows`` from the scores of every block."""
        start = self.candidates.shard.start
        own = torch.arange(start + rows.start, start + rows.stop, device=scores[0].device)[:, None]
        positive = scores[0].detach().gather(1, own)[:, 0]
        named = dict(zip(self.learned, learned, strict=True))
        losses = [
            self.loss.reduce(self._logits(group, scores, rows, own, positive, named))
            for group in self.groups
        ]
        return torch.stack(losses).mean(dim=0)

    def _logits(
        self,
        group: list[int],
        scores: Sequence[Tensor],
        rows: slice,
        own: Tensor,
        positive: Tensor,
        learned: Mapping[str, Tensor],
    ) -> Logits:
        scale = self.loss.scale(learned)
        hard: Tensor | None = None
        parts: list[Tensor] = []
        width = 0
        for block in group:
            row, column = self.blocks[block]
            values = scores[block] * scale
            of_own = self.own_columns(block, own)
            if column == "negative":
                hard = of_own + width if row == "query" else hard
            if self.loss.masks:
                view = self._view(block, scores[block].detach(), rows, positive)
                values = soften(self.loss.masks, view, values)
            dropped = self.dropped(block, group, scores[block], rows, own, positive)
            if dropped is not None:
                values = values.masked_fill(dropped, -torch.inf)
            if self.lacks_own(block, group):
                values = values.scatter(1, of_own, -torch.inf)
            parts.append(values)
            width += values.shape[1]
        joined = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        raw = [scores[block].detach() for block in group]
        teacher = None if self.teacher is None else self.teacher[rows]
        return self.loss._weighed(Logits(joined, raw, own[:, 0], hard, teacher, learned))

    def own_columns(self, block: int, own: Tensor) -> Tensor:
        """``(r, 1)`` or ``(r, k)`` columns of the rows' own texts in a block.

        Args:
            own: ``(r, 1)`` numbers of the rows' pairs.
        """
        if self.blocks[block][1] != "negative":
            return own
        k = self.candidates.per_query
        return own * k + torch.arange(k, device=own.device)

    def _counts(self, block: int, group: list[int]) -> bool:
        """Whether a row meets its positive here, and it counts."""
        again = self.blocks[block] == ("positive", "query") and self.loss.repeat_positive
        return block == group[0] or again

    def lacks_own(self, block: int, group: list[int]) -> bool:
        """Whether a row's own texts do not compete in this block."""
        own_negatives = self.blocks[block] == ("query", "negative")
        queue = self.blocks[block][1] in QUEUES.values()
        return not (self._counts(block, group) or own_negatives or queue)

    def dropped(
        self,
        block: int,
        group: list[int],
        scores: Tensor,
        rows: slice,
        own: Tensor,
        positive: Tensor,
    ) -> Tensor | None:
        """``(r, c)`` bool, True where masks drop a candidate; None for nothing."""
        dropped = None
        if self.loss.masks:
            view = self._view(block, scores.detach(), rows, positive)
            dropped = drop_any(self.loss.masks, view)
        of_own = self.own_columns(block, own)
        if self.blocks[block] == ("query", "negative") and self.loss.hard_negatives == "own":
            foreign = torch.ones_like(scores, dtype=torch.bool).scatter_(1, of_own, False)
            dropped = foreign if dropped is None else dropped | foreign
        if dropped is not None and self._counts(block, group):
            dropped = dropped.scatter(1, of_own, False)
        return dropped

    def _view(self, block: int, scores: Tensor, rows: slice, positive: Tensor) -> View:
        row, column = self.blocks[block]
        facts = self.candidates.row_facts
        modality = facts["positive"].modality
        return View(
            row_kind=row,
            column_kind=column,
            rows=facts[row].map(lambda t: t[rows]),
            columns=self.candidates.column_facts[column],
            scores=scores,
            positive=positive,
            guide=None if self.guide is None else self.guide[rows],
            modality=None if modality is None else modality[rows],
        )

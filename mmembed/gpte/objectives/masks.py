"""Which negatives are false: masks that drop candidates from a contrastive loss.

A mask looks at one tile of one block and says which entries to drop. Masks compose: an entry is
dropped if any mask drops it. The positive itself is never dropped and a text never competes with
itself; the objective sees to both, whatever the masks say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.candidates import View
from mmembed.gpte.onednn import matmul_nt
from mmembed.gpte.protocols import QUEUES

__all__ = [
    "DuplicateMask",
    "GuideMask",
    "Mask",
    "ModalityMask",
    "SoftMask",
    "ThresholdMask",
    "drop_any",
    "soften",
]


class Mask(Protocol):
    """A frozen dataclass; pure."""

    def drop(self, view: View) -> Tensor | None:
        """``(r, c)`` bool, True on entries to drop; None if nothing is to be dropped."""
        ...


@runtime_checkable
class SoftMask(Protocol):
    """A mask that can also keep a candidate at less than its full weight."""

    def log_weights(self, view: View) -> Tensor | None:
        """``(r, c)`` to add to the logits; None for nothing."""
        ...


@dataclass(frozen=True)
class DuplicateMask:
    """Drop candidates known to be relevant by their content hashes.

    A candidate is no negative of a row if its text is the row's query or positive, or if it comes
    from a pair with the same query or the same positive. Hard negatives are judged by their own
    text alone: those of an equal query are true negatives.
    """

    def drop(self, view: View) -> Tensor | None:
        """As :meth:`Mask.drop`; the data must carry ``query_hash`` and ``positive_hash``."""
        rows, columns = view.rows, view.columns
        pairs = [(columns.text, rows.query), (columns.text, rows.positive)]
        if view.column_kind in ("query", "positive"):
            pairs += [(columns.query, rows.query), (columns.positive, rows.positive)]
        dropped: Tensor | None = None
        for column, row in pairs:
            if column is not None and row is not None:
                equal = row[:, None] == column
                dropped = equal if dropped is None else dropped.logical_or_(equal)
        if dropped is None and view.column_kind not in QUEUES.values():
            raise ConfigError("the duplicate mask needs content hashes, and the data carries none")
        return dropped


@dataclass(frozen=True)
class ThresholdMask:
    """Drop candidates that score clearly above the positive (Qwen3-Embedding, Zhang et al. 2025).

    Entry ``ij`` is dropped if ``s_ij > s_ii + margin``, or with ``relative`` if
    ``s_ij > s_ii + margin * |s_ii|`` (``margin=-0.05`` is the filter at 95 % of the positive).

    Attributes:
        margin: 0.1 in the paper.
    """

    margin: float = 0.1
    relative: bool = False

    def drop(self, view: View) -> Tensor | None:
        """As :meth:`Mask.drop`."""
        slack = self.margin * view.positive.abs() if self.relative else self.margin
        return view.scores > (view.positive + slack)[:, None]


@dataclass(frozen=True)
class GuideMask:
    """Drop candidates that a frozen guide model finds nearer than the positive (GISTEmbed).

    Solatorio 2024: entry ``ij`` is dropped if the guide's cosine ``g_ij > g_ii - margin``
    (absolute) or ``g_ij > g_ii - margin * |g_ii|`` (relative), where ``g_ii`` scores the row's own
    pair in every block.
    """

    margin: float = 0.0
    strategy: Literal["absolute", "relative"] = "absolute"

    def drop(self, view: View) -> Tensor | None:
        """As :meth:`Mask.drop`; the batch must carry the guide's vectors."""
        if view.column_kind in QUEUES.values():
            return None
        if view.guide is None or view.rows.guide is None or view.columns.guide is None:
            raise ConfigError(
                f"the guide mask needs guide vectors of the {view.row_kind} and "
                f"{view.column_kind} columns, and the batch carries none"
            )
        slack = self.margin * (view.guide.abs() if self.strategy == "relative" else 1.0)
        return matmul_nt(view.rows.guide, view.columns.guide) > (view.guide - slack)[:, None]


@dataclass(frozen=True)
class ModalityMask:
    """Let a row compete only against documents of its positive's modality (UNITE's MAMCL).

    Kong et al. 2025: documents whose modality bitmask differs from that of the row's positive are
    dropped. Queries as candidates are left alone.

    Attributes:
        weight: what such documents count for in the partition function: 0 drops them, as the paper
            does; more keeps some cross-modal competition.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < 1.0:
            raise ConfigError(f"a modality weight lies in [0, 1), not {self.weight}")

    def drop(self, view: View) -> Tensor | None:
        """As :meth:`Mask.drop`."""
        return self._foreign(view) if self.weight == 0.0 else None

    def log_weights(self, view: View) -> Tensor | None:
        """As :meth:`SoftMask.log_weights`."""
        foreign = self._foreign(view) if self.weight > 0.0 else None
        if foreign is None:
            return None
        return foreign.to(view.scores.dtype) * math.log(self.weight)

    def _foreign(self, view: View) -> Tensor | None:
        if view.column_kind not in ("positive", "negative"):
            return None
        if view.modality is None or view.columns.modality is None:
            raise ConfigError(
                "the modality mask needs 'modality' (of positives) and, with hard negatives, "
                "'negative_modality' with every row"
            )
        return view.modality[:, None] != view.columns.modality


def drop_any(masks: tuple[Mask, ...], view: View) -> Tensor | None:
    """``(r, c)`` bool: the union of the masks' drops; None for none."""
    dropped: Tensor | None = None
    for mask in masks:
        found = mask.drop(view)
        if found is not None:
            dropped = found if dropped is None else torch.logical_or(dropped, found)
    return dropped


def soften(masks: tuple[Mask, ...], view: View, logits: Tensor) -> Tensor:
    """``(r, c)`` logits with the soft masks' log-weights added."""
    for mask in masks:
        found = mask.log_weights(view) if isinstance(mask, SoftMask) else None
        logits = logits if found is None else logits + found
    return logits

"""One preprocessed input, not yet batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Row", "span_mask"]


@dataclass(slots=True)
class Row:
    """One preprocessed item. Rows stay apart until ``collate``, so slicing a batch is list slicing.

    Attributes:
        input_ids: token ids, placeholders of visual tokens included.
        tokens: length of the sequence the model will read, which is what the row costs.
        extras: tensors of this row alone (pixels, grids), by the family's own names.
        spans: named ``(start, stop)`` token ranges, e.g. ``"instruction"``, ``"visual"``.
        boxes: ``(visual tokens, 4)`` float32: the part of its only picture that each visual token
            was made of: left, top, right and bottom as fractions; None where that is not known.
        task: name of the task adapter that reads the row, or ``""`` for the model alone.
    """

    input_ids: list[int]
    tokens: int
    extras: dict[str, Tensor] = field(default_factory=dict)
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    boxes: Tensor | None = None
    task: str = ""


def span_mask(rows: Sequence[Row], name: str) -> Tensor:
    """``(tokens,)`` bool: where a span of this name lies in the rows, one after another."""
    mask = torch.zeros(sum(row.tokens for row in rows), dtype=torch.bool)
    start = 0
    for row in rows:
        for first, stop in row.spans.get(name, ()):
            mask[start + first : start + stop] = True
        start += row.tokens
    return mask

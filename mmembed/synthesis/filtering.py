"""Keeping what a retriever agrees with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["consistent"]

_QUERIES = 256


def consistent(
    rows: Sequence[Mapping[str, Any]], model: Embedder, *, rank: int = 1
) -> list[Mapping[str, Any]]:
    """The rows whose positive is among the ``rank`` best of all rows' positives for its query.

    The round trip of Promptagator (Dai et al. 2023, with rank 1) and CoRNStack.
    """
    if not rows:
        return []
    places: dict[str, int] = {}
    items: list[Any] = []
    for row in rows:
        if repr(row["positive"]) not in places:
            places[repr(row["positive"])] = len(items)
            items.append(row["positive"])
    documents = model.encode_document(items, show_progress=False)
    kept = []
    for start in range(0, len(rows), _QUERIES):
        part = rows[start : start + _QUERIES]
        scores = model.encode_query([row["query"] for row in part], show_progress=False)
        scores = scores @ documents.T
        own = np.array([places[repr(row["positive"])] for row in part])
        better = (scores > scores[np.arange(len(part)), own][:, None]).sum(axis=1)
        kept += [row for row, above in zip(part, better, strict=True) if above < rank]
    return kept

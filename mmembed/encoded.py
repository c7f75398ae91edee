"""What became of one input: made by the embedder, stored by the index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmembed.errors import InputError

__all__ = ["Encoded", "SparseVector"]


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The lexical weights of one input that are not zero.

    Attributes:
        indices: ``(k,)`` int64 token ids, ascending.
        weights: ``(k,)`` float32, positive.
    """

    indices: np.ndarray[Any, np.dtype[np.int64]]
    weights: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded input.

    Attributes:
        position: number of the item in the stream, from 0.
        vector: ``(d,)`` float32 dense vector; None when the item failed or dense was not wanted.
        error: why it failed, or None.
        text: words found while decoding, e.g. a page's text layer, for full-text search; None
            where there is nothing beyond the text the item came with.
        multi: ``(t, k)`` float32 unit vectors, one a token, where they were wanted.
        boxes: ``(t, 4)`` float32: the part of the input's only picture that each row of ``multi``
            was made of, as left, top, right and bottom in fractions of it; NaN for a token that is
            no part of the picture. None where the model does not say.
        sparse: lexical weights, where they were wanted.
    """

    position: int
    vector: np.ndarray[Any, np.dtype[np.float32]] | None = field(default=None, repr=False)
    error: InputError | None = None
    text: str | None = None
    multi: np.ndarray[Any, np.dtype[np.float32]] | None = field(default=None, repr=False)
    boxes: np.ndarray[Any, np.dtype[np.float32]] | None = field(default=None, repr=False)
    sparse: SparseVector | None = field(default=None, repr=False)

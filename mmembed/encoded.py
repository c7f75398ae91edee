"""What became of one input: made by the embedder, stored by the index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmembed.errors import InputError

__all__ = ["Encoded"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded input.

    Attributes:
        position: number of the item in the stream, from 0.
        vector: ``(d,)`` float32, or None when the item failed.
        error: why it failed, or None.
        text: words found while decoding, e.g. a page's text layer, for full-text search; None
            where there is nothing beyond the text the item came with.
    """

    position: int
    vector: np.ndarray[Any, np.dtype[np.float32]] | None = field(default=None, repr=False)
    error: InputError | None = None
    text: str | None = None

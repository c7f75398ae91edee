"""Few lengths of packed batches, for kernels that are made for one length each."""

from __future__ import annotations

__all__ = ["bucket_of"]

_SMALLEST = 64


def bucket_of(tokens: int) -> int:
    """The number of tokens that a batch is filled up to: 64, 96, 128, 192, 256, 384, ..."""
    size = _SMALLEST
    while size < tokens:
        if size * 3 // 2 >= tokens:
            return size * 3 // 2
        size *= 2
    return size

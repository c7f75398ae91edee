"""Late interaction: exact MaxSim over ragged lists of token vectors, the reference for all others.

MaxSim (Khattab and Zaharia, "ColBERT", SIGIR 2020) adds up, over the tokens of the query, the
largest dot product with any token of the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mmembed.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["TokenVectors", "maxsim", "maxsim_joined", "unpad"]

TokenVectors: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor"
_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

# Scores of query tokens against document tokens that exist at one time: 64 MB of float32.
_BLOCK = 1 << 24


def maxsim(queries: Sequence[TokenVectors], documents: Sequence[TokenVectors]) -> _Float32:
    """Score every query against every document, in float32.

    Args:
        queries: one ``(tokens, k)`` array or tensor a query, of any lengths and float type.
        documents: the same for the documents.

    Returns:
        ``(len(queries), len(documents))`` float32.

    Raises:
        InputError: an entry has no tokens, or another width than the rest.
    """
    query_arrays = _checked("query", queries)
    document_arrays = _checked("document", documents)
    widths = {array.shape[1] for array in (*query_arrays, *document_arrays)}
    if len(widths) > 1:
        raise InputError("maxsim", f"token vectors of different widths: {sorted(widths)}")
    scores = np.empty((len(query_arrays), len(document_arrays)), dtype=np.float32)
    longest = max((len(array) for array in query_arrays), default=1)
    for start, stop in _blocks([len(array) for array in document_arrays], _BLOCK // longest):
        some = document_arrays[start:stop]
        offsets = np.cumsum([0, *(len(array) for array in some[:-1])])
        tokens = np.concatenate(some)
        for row, query in enumerate(query_arrays):
            scores[row, start:stop] = maxsim_joined(query, tokens, offsets)
    return scores


def maxsim_joined(query: _Float32, tokens: _Float32, offsets: np.ndarray[Any, Any]) -> _Float32:
    """Score one query against documents whose tokens lie in one array.

    Args:
        query: ``(q, k)`` float32.
        tokens: ``(t, k)`` float32, all documents one after another.
        offsets: ``(n,)`` the first token of each document; every document has one at least.

    Returns:
        ``(n,)`` float32.
    """
    if not len(offsets):
        return np.empty(0, dtype=np.float32)
    best = np.maximum.reduceat(query @ tokens.T, offsets, axis=1)
    return np.asarray(best.sum(axis=0), dtype=np.float32)


def unpad(padded: TokenVectors, mask: TokenVectors) -> list[_Float32]:
    """Cut ``(n, tokens, k)`` padded vectors to ragged ones; ``mask`` is ``(n, tokens)``.

    What is not there cannot win a maximum, which a zero vector can when all real scores are
    negative.
    """
    keep = _float32(mask) != 0
    return [vectors[real] for vectors, real in zip(_float32(padded), keep, strict=True)]


def _checked(kind: str, values: Sequence[TokenVectors]) -> list[_Float32]:
    arrays = [_float32(value) for value in values]
    for position, array in enumerate(arrays):
        if array.ndim != 2 or not len(array):
            raise InputError(
                f"{kind} {position}",
                f"has shape {array.shape}, needs (tokens, k) with at least one token",
            )
    return arrays


def _float32(value: TokenVectors) -> _Float32:
    # numpy has no bfloat16, so a tensor is widened by torch.
    array = value if isinstance(value, np.ndarray) else value.detach().float().cpu().numpy()
    return np.asarray(array, dtype=np.float32)


def _blocks(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Consecutive ranges of at most ``budget`` tokens each, and of one document at least."""
    blocks: list[tuple[int, int]] = []
    start = total = 0
    for position, length in enumerate(lengths):
        if position > start and total + length > budget:
            blocks.append((start, position))
            start, total = position, 0
        total += length
    if start < len(lengths):
        blocks.append((start, len(lengths)))
    return blocks

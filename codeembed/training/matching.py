"""Reranking by a matching head: does this text describe this code? (CodeT5+, Wang et al., 2023)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmembed.gpte.matching import match_logits
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["reranked"]

Array = np.ndarray[Any, np.dtype[Any]]


def reranked(
    cosines: Array,
    queries: Sequence[str],
    documents: Sequence[str],
    encoder: TextEncoder,
    depth: int = 32,
) -> Array:
    """``(q, d)`` scores: cosine plus the match's log-odds for the best ``depth`` of each query.

    All others stay behind them, in the order of their cosines.

    Args:
        cosines: ``(q, d)`` by the encoder that retrieves.
        encoder: has a matching head.
    """
    found = np.empty(cosines.shape)
    for row, query in enumerate(queries):
        best = np.argsort(-cosines[row], kind="stable")[:depth]
        scores = cosines[row, best] + match_logits(encoder, [(query, documents[at]) for at in best])
        found[row] = cosines[row] - cosines[row].max() + scores.min() - 1.0
        found[row, best] = scores
    return found

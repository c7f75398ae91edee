"""Scores of a query against its own candidates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte.objectives.base import positive_of, wide
from mmembed.gpte.objectives.candidates import Head, head_of, multi_of
from mmembed.gpte.objectives.multivector import maxsim
from mmembed.gpte.protocols import Columns, Outputs

__all__ = ["Score", "all_scores", "own_scores", "pair_scores"]

Score = Literal["cosine", "dot", "sparse", "maxsim", "mean_maxsim"]


def pair_scores(
    queries: Outputs, documents: Outputs, score: Score, dim: int | None = None
) -> Tensor:
    """Each query against its own documents.

    Args:
        queries: outputs of ``n`` queries.
        documents: outputs of ``n * m`` documents, those of query 0 first.
        dim: score this prefix of dense vectors.

    Returns:
        ``(n, m)`` scores, at least float32.
    """
    if score in ("maxsim", "mean_maxsim"):
        q, q_mask = multi_of(queries)
        d, d_mask = multi_of(documents)
        m = len(d) // max(len(q), 1)
        d, d_mask = d.unflatten(0, (len(q), m)), d_mask.unflatten(0, (len(q), m))
        return maxsim(q, q_mask, d, d_mask, mean=score == "mean_maxsim", paired=True)
    head: Head = "sparse" if score == "sparse" else "dense"
    left, right = head_of(queries, head)[:, :dim], head_of(documents, head)[:, :dim]
    if score == "cosine":
        left, right = F.normalize(left, dim=1), F.normalize(right, dim=1)
    m = len(right) // max(len(left), 1)
    return torch.einsum("nd,nmd->nm", left, right.view(len(left), m, right.shape[1]))


def all_scores(queries: Outputs, documents: Outputs, score: Score) -> Tensor:
    """``(n, m)`` scores of ``n`` queries against ``m`` documents, at least float32.

    Raises:
        ConfigError: the encoder lacks the head.
    """
    if score in ("maxsim", "mean_maxsim"):
        return maxsim(*multi_of(queries), *multi_of(documents), mean=score == "mean_maxsim")
    head: Head = "sparse" if score == "sparse" else "dense"
    left, right = wide(head_of(queries, head)), wide(head_of(documents, head))
    if score == "cosine":
        left, right = F.normalize(left, dim=1), F.normalize(right, dim=1)
    return left @ right.T


def own_scores(columns: Columns, score: Score, dim: int | None = None) -> Tensor:
    """``(n, 1 + k)`` scores of each query against its positive and its ``k`` hard negatives.

    Raises:
        ConfigError: the batch has no positives, or the encoder lacks the head.
    """
    found = [pair_scores(columns.query, positive_of(columns), score, dim)]
    if columns.negative is not None and columns.negatives_per_query:
        found.append(pair_scores(columns.query, columns.negative, score, dim))
    return torch.cat(found, dim=1)

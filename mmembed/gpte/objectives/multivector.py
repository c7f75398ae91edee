"""Late interaction: scores of token vectors (ColBERT, Khattab and Zaharia 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["maxsim"]

_TOKEN_SCORES = 1 << 24  # token-to-token scores that exist at the same time


def maxsim(
    queries: Tensor,
    query_mask: Tensor,
    documents: Tensor,
    document_mask: Tensor,
    *,
    mean: bool = False,
    paired: bool = False,
) -> Tensor:
    """``sum_t max_u <q_t, d_u>`` over real tokens, for all pairs of queries and documents.

    Padding of a document never wins, even where all its real scores are negative, and padding of a
    query adds nothing. Token scores of a few queries exist at a time and are made again in the
    backward pass.

    Args:
        queries: ``(n, t, k)`` unit token vectors.
        query_mask: ``(n, t)`` bool.
        documents: ``(m, u, k)``; with ``paired``, ``(n, m, u, k)``: each query's own documents.
        document_mask: ``(m, u)`` or ``(n, m, u)`` bool.
        mean: divide by the query's number of tokens.

    Returns:
        ``(n, m)`` scores, at least float32. A document without tokens scores 0.
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    queries, documents = queries.to(wide), documents.to(wide)
    per_query = queries.shape[1] * document_mask.shape[-2] * document_mask.shape[-1]
    step = max(1, _TOKEN_SCORES // max(per_query, 1))
    chunks = []
    for at in range(0, len(queries), step):
        rows = slice(at, at + step)
        d, mask = (documents[rows], document_mask[rows]) if paired else (documents, document_mask)
        arguments = (queries[rows], query_mask[rows], d, mask, mean)
        if torch.is_grad_enabled() and step < len(queries):
            chunks.append(
                checkpoint(_maxsim, *arguments, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            chunks.append(_maxsim(*arguments))
    return torch.cat(chunks) if chunks else queries.new_zeros(0, document_mask.shape[-2])


def _maxsim(q: Tensor, q_mask: Tensor, d: Tensor, d_mask: Tensor, mean: bool) -> Tensor:
    pattern = "ntk,nmuk->nmtu" if d.dim() == 4 else "ntk,muk->nmtu"
    scores = torch.einsum(pattern, q, d)
    hidden = ~d_mask.unsqueeze(-2)  # (..., m, 1, u)
    best = scores.masked_fill(hidden, -torch.inf).amax(dim=-1)
    best = best.masked_fill(best == -torch.inf, 0.0)
    best = best * q_mask.unsqueeze(-2)
    total = best.sum(dim=-1)
    return total / q_mask.sum(dim=-1, keepdim=True).clamp_min(1) if mean else total

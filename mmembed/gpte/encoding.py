"""Encode many texts: tokenise once, batch by token count, answer in the given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.gpte.objectives.base import dense_of
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["encode", "outputs_of", "token_batches"]


@torch.inference_mode()
def encode(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    role: str | None = None,
    instruction: str | Sequence[str | None] | None = None,
    batch_tokens: int = 4096,
) -> Tensor:
    """Dense vectors of texts, from the encoder in evaluation mode.

    Args:
        encoder: the encoder; its mode is restored afterwards.
        texts: any number of texts.
        role: whose prompt to use, e.g. ``"query"``.
        instruction: one for all texts, or one each.
        batch_tokens: tokens read at once.

    Returns:
        ``(n, d)`` float32 on the CPU in the order of the texts, unit vectors where the encoder's
        settings say so.

    Raises:
        InputError: as :meth:`TextEncoder.tokenize`.
    """
    rows = encoder.tokenize(texts, role=role, instruction=instruction)
    out = torch.empty(len(rows), encoder.dim)
    for part, outputs in outputs_of(encoder, rows, batch_tokens):
        dense = dense_of(outputs).float()
        out[part] = (F.normalize(dense, dim=1) if encoder.settings.normalize else dense).cpu()
    return out


@torch.inference_mode()
def outputs_of(
    encoder: TextEncoder, rows: Sequence[Row], batch_tokens: int = 4096
) -> Iterator[tuple[list[int], Outputs]]:
    """Every head's outputs, batch by batch, with the indices of the rows that they are of.

    The encoder is in evaluation mode until the last batch, and then as it was.
    """
    was_training = encoder.training
    encoder.eval()
    try:
        for part in token_batches(rows, batch_tokens):
            yield part, encoder(encoder.collate([rows[i] for i in part]))
    finally:
        encoder.train(was_training)


def token_batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows by falling length, in batches of at most that many tokens, or of one row.

    The longest come first, so that a batch too large for the memory fails at once.
    """
    batch: list[int] = []
    held = 0
    for i in sorted(range(len(rows)), key=lambda i: -rows[i].tokens):
        if batch and held + rows[i].tokens > batch_tokens:
            yield batch
            batch, held = [], 0
        batch.append(i)
        held += rows[i].tokens
    if batch:
        yield batch

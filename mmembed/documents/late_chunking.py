"""Late chunking: read the whole document, then pool the tokens of each chunk.

A chunk's vector knows what stands around it: "it has three million inhabitants" lies near the city
that was named a paragraph before (Günther et al., 2024, "Late Chunking").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.base import module_of
from mmembed.errors import ConfigError, InputError
from mmembed.inputs.decoded import DecodedItem

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["Span", "late_chunks", "token_states"]

Span: TypeAlias = tuple[int, int]
"""Characters ``(start, stop)`` of a document."""


def late_chunks(
    model: Embedder, text: str, chunks: Sequence[Span], *, overlap: int | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector of each chunk of a text, from one reading of the whole.

    A text longer than the model reads is read in windows that overlap, and a token is taken from
    the window in which it has more before it ("long late chunking" of the paper).

    Args:
        model: an embedder of texts that pools by the mean of its tokens.
        text: the document.
        chunks: characters ``(start, stop)`` of each chunk, in any order; they may overlap.
        overlap: tokens that a window shares with the one before it; a quarter of a window by
            default.

    Returns:
        ``(n, d)`` float32 unit vectors in the order of the chunks, comparable with the model's
        other vectors.

    Raises:
        ConfigError: the model pools otherwise, or puts words around a text.
        InputError: a chunk lies outside the text or holds no token.
    """
    for place, (start, stop) in enumerate(chunks):
        if not 0 <= start < stop <= len(text):
            raise InputError(f"chunk {place}", f"is characters {start} to {stop} of {len(text)}")
    states, offsets = token_states(model, text, overlap=overlap)
    starts, ends = (torch.tensor([pair[i] for pair in offsets]) for i in range(2))
    out = []
    for place, (start, stop) in enumerate(chunks):
        inside = (starts < stop) & (ends > start)
        if not inside.any():
            raise InputError(f"chunk {place}", "holds no token", "leave blank chunks out")
        out.append(states[inside].mean(dim=0))
    if not out:
        return np.empty((0, model.dim), dtype=np.float32)
    return np.asarray(F.normalize(torch.stack(out), dim=1).numpy(), dtype=np.float32)


@torch.inference_mode()
def token_states(
    model: Embedder, text: str, *, overlap: int | None = None
) -> tuple[Tensor, list[Span]]:
    """The last hidden state of each token of a text, and the characters it stands for.

    Returns:
        ``(tokens, d)`` float32 on the CPU without special tokens, and ``(start, stop)`` of each.

    Raises:
        ConfigError: as :func:`late_chunks`.
        InputError: the text has no tokens, or the overlap leaves no room.
    """
    _check_pooling(model)
    tokenizer = getattr(model.backbone, "tokenizer", None)
    if tokenizer is None or "text" not in model.modalities:
        raise ConfigError("late chunking needs a model that reads texts with a tokenizer")
    encoding: Any = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    offsets: list[Span] = [tuple(pair) for pair in encoding.offsets]
    if not offsets:
        raise InputError("text", "has no tokens")
    around = model.count_tokens(["a"])[0] - len(
        tokenizer.backend_tokenizer.encode("a", add_special_tokens=False).ids
    )
    room = model.max_tokens - around
    overlap = room // 4 if overlap is None else overlap
    if not 0 <= overlap < room:
        raise InputError("overlap", f"is {overlap} of {room} tokens that the model reads at once")
    parts: list[Tensor] = []
    done = 0
    while done < len(offsets):
        first = max(0, done - overlap)
        last = min(len(offsets), first + room)
        window = text[offsets[first][0] : offsets[last - 1][1]]
        found, fewer = _read(model, window, last - first, around)
        parts.append(found[done - first :])
        if fewer:  # at a window's edge a word may fall into other tokens
            raise ConfigError(
                "this tokenizer cuts a part of a text otherwise than the whole: late chunking "
                f"works on texts of up to {room} tokens with it"
            )
        done = last
    return torch.cat(parts), offsets


def _read(model: Embedder, window: str, tokens: int, around: int) -> tuple[Tensor, bool]:
    """States of a window's own tokens; and whether it has other tokens than were counted."""
    (row,) = model.backbone.prepare([DecodedItem((window,))])
    if row.tokens != tokens + around:
        return torch.empty(0, model.dim), True
    batch = model.backbone.collate([row])
    encoder = getattr(model.backbone, "encoder", None)
    read = module_of(model.backbone) if encoder is None else encoder.read
    states = read(batch).hidden.float().cpu()
    lead = _leading(model, around)
    return states[lead : lead + tokens], False


def _leading(model: Embedder, around: int) -> int:
    """How many of the special tokens stand before the text."""
    tokenizer = model.backbone.tokenizer  # type: ignore[attr-defined]
    mask = tokenizer.backend_tokenizer.encode("a", add_special_tokens=True).special_tokens_mask
    return min(around, mask.index(0))


def _check_pooling(model: Embedder) -> None:
    encoder = getattr(model.backbone, "encoder", None)
    if encoder is not None:
        settings = encoder.settings
        plain = settings.poolings == ("mean",) and not settings.projections
        plain = plain and encoder.calibration is None and not settings.latents
    else:
        plain = model.config.pooling == "mean" and not hasattr(model.backbone, "embed")
    if not plain:
        raise ConfigError(
            "late chunking pools chunks by the mean of their tokens, and this model makes its "
            "vectors otherwise: choose a model with mean pooling and nothing behind it"
        )

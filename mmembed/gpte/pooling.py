"""Pooling: packed token states in, one vector a row out.

Every function maps :class:`TokenStates` of ``n`` rows to ``(n, d)`` in float32 (float64 stays
float64), accumulates in that type, and lets gradients through. ``exclude`` names a span whose
tokens are left out, e.g. ``"instruction"``. There is no padding, hence no padding side.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.states import TokenStates, row_ids

__all__ = [
    "POOLINGS",
    "Pooling",
    "first",
    "last",
    "last_k",
    "max_pool",
    "mean",
    "mean_sqrt",
    "pooling_of",
    "position_weighted",
]


class Pooling(Protocol):
    """``(n rows of token states) -> (n, d)`` vectors, not normalised."""

    def __call__(self, states: TokenStates, *, exclude: str | None = None) -> Tensor: ...


def first(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The first token of each row: ``[CLS]`` in BERT, the start token in a T5 decoder."""
    kept, offsets = _kept(states, exclude)
    return _wide(states.hidden[kept[offsets[:-1]]])


def last(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The last token of each row, as decoders are pooled (E5-Mistral, Qwen3-Embedding)."""
    kept, offsets = _kept(states, exclude)
    return _wide(states.hidden[kept[offsets[1:] - 1]])


def mean(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The mean over tokens (Sentence-BERT, E5, GTE)."""
    kept, offsets = _kept(states, exclude)
    return _bags(states, kept, offsets) / offsets.diff().unsqueeze(1)


def mean_sqrt(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The sum over tokens, divided by the root of their number (Universal Sentence Encoder)."""
    kept, offsets = _kept(states, exclude)
    return _bags(states, kept, offsets) / offsets.diff().unsqueeze(1).sqrt()


def max_pool(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The maximum over tokens, for each dimension on its own."""
    kept, offsets = _kept(states, exclude)
    return F.embedding_bag(
        kept, _wide(states.hidden), offsets, mode="max", include_last_offset=True
    )


def last_k(states: TokenStates, *, k: int = 4, exclude: str | None = None) -> Tensor:
    """The mean over the last ``k`` tokens of each row, or over all of a shorter row."""
    if k < 1:
        raise ConfigError(f"last_k pooling needs k >= 1, not {k}")
    kept, offsets = _kept(states, exclude)
    ends = torch.repeat_interleave(offsets[1:], offsets.diff())
    tail = torch.arange(kept.numel(), device=kept.device) >= ends - k
    starts = torch.maximum(offsets[:-1], offsets[1:] - k)
    lengths = offsets[1:] - starts
    return _bags(states, kept[tail], _offsets(lengths)) / lengths.unsqueeze(1)


def position_weighted(states: TokenStates, *, exclude: str | None = None) -> Tensor:
    """The mean weighted by position, 1 for a row's first token (SGPT).

    Tokens keep the weight of their position in the whole row when a span is left out, as in
    sentence-transformers.
    """
    kept, offsets = _kept(states, exclude)
    position = torch.arange(len(states.hidden), device=kept.device)
    position = position - states.offsets[row_ids(states.offsets)] + 1
    weights = position[kept].to(_wide_type(states.hidden))
    totals = F.embedding_bag(
        torch.arange(kept.numel(), device=kept.device),
        weights.unsqueeze(1),
        offsets,
        mode="sum",
        include_last_offset=True,
    )
    return _bags(states, kept, offsets, weights) / totals


POOLINGS: dict[str, Callable[..., Tensor]] = {
    "first": first,
    "last": last,
    "last_k": last_k,
    "max": max_pool,
    "mean": mean,
    "mean_sqrt": mean_sqrt,
    "position_weighted": position_weighted,
}


def pooling_of(name: str, **options: Any) -> Pooling:
    """The pooling of this name, e.g. ``pooling_of("last_k", k=8)``.

    Raises:
        ConfigError: the name is unknown; the message holds the nearest one.
    """
    if name not in POOLINGS:
        near = difflib.get_close_matches(name, POOLINGS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown pooling {name!r}{hint} (known: {', '.join(POOLINGS)})")
    return partial(POOLINGS[name], **options) if options else POOLINGS[name]


def _kept(states: TokenStates, exclude: str | None) -> tuple[Tensor, Tensor]:
    """Indices ``(kept,)`` of the tokens to pool, and their ``(n + 1,)`` row offsets."""
    offsets = states.offsets
    kept = torch.arange(len(states.hidden), device=states.hidden.device)
    if exclude is not None:
        if exclude not in states.spans:
            known = ", ".join(states.spans) or "none"
            raise ConfigError(f"no span {exclude!r} to leave out of pooling; spans: {known}")
        keep = ~states.spans[exclude]
        kept = kept[keep]
        offsets = _offsets(keep)[offsets]
    empty = (offsets.diff() == 0).nonzero()
    if len(empty):
        row = int(empty[0])
        left_out = f" outside its {exclude!r} span" if exclude else ""
        hint = "give it some text, or let pooling read the whole row"
        raise InputError(f"row {row}", f"no token to pool{left_out}", hint)
    return kept, offsets


def _bags(
    states: TokenStates, kept: Tensor, offsets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """``(n, d)`` sums over the kept tokens of each row, in their order, without copying them."""
    return F.embedding_bag(
        kept,
        _wide(states.hidden),
        offsets,
        mode="sum",
        include_last_offset=True,
        per_sample_weights=weights,
    )


def _offsets(lengths: Tensor) -> Tensor:
    """Offsets of rows with these lengths, on their device."""
    return F.pad(lengths.cumsum(0), (1, 0))


def _wide_type(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def _wide(hidden: Tensor) -> Tensor:
    """At least float32: bfloat16 counts no further than 256."""
    return hidden.to(_wide_type(hidden))

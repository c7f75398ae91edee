"""Token-level losses that train together with a sentence objective.

Each is a function of the token states of one chunk of rows, already divided by the number of
labelled tokens of the *whole* step over all processes (:func:`token_factor`), so that chunks and
processes simply add up: a gradient cache adds one of these per chunk to its replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import global_count, world_size
from mmembed.gpte.objectives.base import wide
from mmembed.gpte.states import TokenStates

__all__ = [
    "IGNORE",
    "mask_tokens",
    "mlm_loss",
    "mntp_loss",
    "next_token_labels",
    "ntp_loss",
    "rtd_loss",
    "token_factor",
]

IGNORE = -100

Head = Callable[[Tensor], Tensor]
"""``(m, d)`` hidden states to ``(m, vocab)`` logits."""


def token_factor(labels: Iterable[Tensor], device: torch.device | str = "cpu") -> float:
    """``world / count``: what a local sum of token losses is multiplied by.

    Args:
        labels: the labels of every chunk of this process; entries of -100 do not count.
    """
    count = global_count(sum(int((chunk != IGNORE).sum()) for chunk in labels), device)
    return world_size() / max(count, 1.0)


def _cross_entropy(
    hidden: Tensor, labels: Tensor, head: Head, factor: float, block_tokens: int
) -> Tensor:
    """Summed cross entropy of labelled tokens times ``factor``; logits exist for one block only."""
    keep = labels != IGNORE
    hidden, labels = hidden[keep], labels[keep]

    def block(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(wide(head(hidden)), labels, reduction="sum")

    total = 0.0 * wide(hidden).sum()  # keeps the graph whole where nothing is labelled
    for at in range(0, len(labels), block_tokens):
        piece = (hidden[at : at + block_tokens], labels[at : at + block_tokens])
        total = total + checkpoint(block, *piece, use_reentrant=False, preserve_rng_state=False)
    return total * factor


def mlm_loss(
    states: TokenStates, labels: Tensor, head: Head, factor: float, *, block_tokens: int = 512
) -> Tensor:
    """Masked language modelling (Devlin et al. 2019): token ``i`` is told from state ``i``.

    Args:
        labels: ``(total_tokens,)`` int64 original ids at masked tokens, -100 elsewhere.
        head: hidden states to vocabulary logits.
        factor: from :func:`token_factor` over the labels of the whole step.

    Returns:
        0-d float32 share of the mean over all labelled tokens.
    """
    _check(states, labels)
    return _cross_entropy(states.hidden, labels, head, factor, block_tokens)


def next_token_labels(ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """``(total_tokens,)``: each token's successor in its row; -100 at the end of a row."""
    labels = torch.roll(ids, -1)
    ends = torch.tensor([length for length in lengths if length], device=ids.device).cumsum(0) - 1
    labels[ends] = IGNORE
    return labels


def ntp_loss(
    states: TokenStates, labels: Tensor, head: Head, factor: float, *, block_tokens: int = 512
) -> Tensor:
    """Next-token prediction, the generative half of GritLM (Muennighoff et al. 2024).

    Args:
        labels: from :func:`next_token_labels`, with -100 put where no loss is wanted (prompts).
    """
    return mlm_loss(states, labels, head, factor, block_tokens=block_tokens)


def mntp_loss(
    states: TokenStates, labels: Tensor, head: Head, factor: float, *, block_tokens: int = 512
) -> Tensor:
    """Masked next-token prediction (LLM2Vec, BehnamGhader et al. 2024).

    Masked token ``i`` is told from state ``i - 1`` of the same row, as the decoder's head was
    trained to; a masked first token has no predecessor and must not be labelled.

    Args:
        labels: ``(total_tokens,)`` original ids at masked tokens, -100 elsewhere.
    """
    _check(states, labels)
    starts = states.offsets[:-1][states.lengths > 0]
    if bool((labels[starts] != IGNORE).any()):
        raise ConfigError("MNTP cannot predict a row's first token; do not mask it")
    return _cross_entropy(states.hidden, torch.roll(labels, -1), head, factor, block_tokens)


def rtd_loss(logits: Tensor, replaced: Tensor, factor: float) -> Tensor:
    """Replaced-token detection (ELECTRA, Clark et al. 2020; DiffCSE, Chuang et al. 2022).

    Args:
        logits: ``(total_tokens,)`` of "this token was replaced".
        replaced: ``(total_tokens,)`` int64: 1 replaced, 0 original, -100 not judged.
        factor: from :func:`token_factor` over ``replaced`` of the whole step.
    """
    keep = replaced != IGNORE
    judged = wide(logits[keep])
    truth = replaced[keep].to(judged.dtype)
    return F.binary_cross_entropy_with_logits(judged, truth, reduction="sum") * factor


def mask_tokens(
    ids: Tensor,
    maskable: Tensor,
    mask_id: int,
    vocab: int,
    *,
    probability: float = 0.15,
    keep: float = 0.1,
    random: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Corrupt tokens for MLM, MNTP or RTD.

    Args:
        ids: ``(total_tokens,)`` int64.
        maskable: ``(total_tokens,)`` bool, False on special tokens and, for MNTP, on first tokens.
        keep, random: shares of the chosen tokens left as they are, or replaced by any token; the
            rest become ``mask_id`` (BERT's 80-10-10; CodeSage and LLM2Vec use ``keep=random=0``).

    Returns:
        The corrupted ids and the labels, -100 where nothing was chosen.
    """
    if not 0.0 <= keep + random <= 1.0:
        raise ConfigError(f"keep {keep} and random {random} exceed the whole")
    draw = torch.rand(ids.shape, generator=generator, device=ids.device)
    chosen = maskable & (draw < probability)
    how = torch.rand(ids.shape, generator=generator, device=ids.device)
    anything = torch.randint(vocab, ids.shape, generator=generator, device=ids.device)
    out = torch.where(chosen & (how >= keep + random), mask_id, ids)
    out = torch.where(chosen & (how >= keep) & (how < keep + random), anything, out)
    return out, torch.where(chosen, ids, IGNORE)


def _check(states: TokenStates, labels: Tensor) -> None:
    if labels.shape != states.hidden.shape[:1]:
        raise ConfigError(
            f"{tuple(labels.shape)} labels for {states.hidden.shape[0]} tokens; give one a token"
        )

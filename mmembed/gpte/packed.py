"""Padding-free forward through any transformers model that takes its attention from the registry.

All rows of a batch are concatenated along one token axis, so linear layers and norms never touch a
pad token. Attention runs per group of rows of equal length, as one unmasked scaled-dot-product call
on views, without copies and without a flash-attention wheel. Nothing about a family is known here:
:func:`packing_of` finds out numerically whether a model packs, and what its positions start at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Layout",
    "Packing",
    "packed_forward",
    "packed_output",
    "packing_of",
    "through",
    "use_packed_attention",
]

NAME = "mmembed_packed"


class Layout:
    """Where the rows of a packed batch lie, and which of them can share an attention call.

    Args:
        lengths: tokens of each row, in order. Sort rows by length where you can: a run of equal
            lengths is one attention call.
        causal: overrides the attention's own direction; None keeps it.
        placed: ``(tokens,)`` int64 positions where they are not 0, 1, 2, ... in every row.
        prefix: for every layer ``(2, kv_heads, p, head_dim)`` keys and values that every row sees
            ahead of its own.
        slopes: ``(heads,)`` penalties a token of distance between query and key (ALiBi), symmetric
            in both directions.
        gathers: ``(tokens,)`` bool, tokens through which alone what is behind them sees what is
            ahead of them; see :func:`through`.
        seen: ``(t, t)`` bool of each row by query and key, where its tokens do not all see each
            other; None for a row without. It adds to what else hides tokens.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        causal: bool | None = None,
        *,
        placed: Tensor | None = None,
        prefix: Sequence[Tensor] | None = None,
        slopes: Tensor | None = None,
        gathers: Tensor | None = None,
        seen: Sequence[Tensor | None] = (),
    ) -> None:
        self.lengths = list(lengths)
        self.causal = causal
        self.placed = placed
        self.prefix = prefix
        self.slopes = slopes
        self.gathers = gathers
        self.seen = seen

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """``(first token, rows, length)`` of each run of consecutive rows of equal length."""
        runs: list[tuple[int, int, int]] = []
        start = 0
        for length in self.lengths:
            if runs and runs[-1][2] == length:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1, length)
            else:
                runs.append((start, 1, length))
            start += length
        return [run for run in runs if run[2]]

    @cached_property
    def masks(self) -> list[Tensor | None]:
        """``(rows, length, length)`` bool of each run; None where all its tokens see each other."""
        if not self.seen:
            return [None] * len(self.runs)
        rows = iter(seen for seen, length in zip(self.seen, self.lengths, strict=True) if length)
        masks: list[Tensor | None] = []
        for _, count, length in self.runs:
            mine = list(islice(rows, count))
            known = [seen for seen in mine if seen is not None]
            if not known:
                masks.append(None)
                continue
            every = known[0].new_ones(length, length)
            masks.append(torch.stack([every if seen is None else seen for seen in mine]))
        return masks

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def positions(self, first: int = 0, device: torch.device | str = "cpu") -> Tensor:
        """``(1, tokens)`` int64 positions that restart at ``first`` in every row."""
        if self.placed is not None:
            return (self.placed + first).unsqueeze(0).to(device)
        steps = torch.arange(max(self.lengths, default=0))
        parts = [steps[:length] for length in self.lengths]
        flat = torch.cat(parts) if parts else steps
        return (flat + first).unsqueeze(0).to(device)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of packed ``(1, heads, tokens, head_dim)``; returns ``(1, tokens, heads, dim)``."""
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        options = {"is_causal": is_causal, "sliding_window": sliding_window, **kwargs}
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    unknown = [k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None]
    if unknown:
        raise NotImplementedError(f"packed attention with {unknown}")
    if is_causal is None:
        is_causal = bool(getattr(module, "is_causal", False))
    causal = is_causal if layout.causal is None else layout.causal
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))  # (tokens, heads, dim)
    out = q.new_empty(q.shape[0], q.shape[1], v.shape[2]) if not torch.is_grad_enabled() else None
    pieces: list[Tensor] = []
    for (start, rows, length), seen in zip(layout.runs, layout.masks, strict=True):
        stop = start + rows * length
        qs, ks, vs = (x[start:stop].unflatten(0, (rows, length)).transpose(1, 2) for x in (q, k, v))
        if layout.prefix is not None:
            layer = int(module.layer_idx)  # type: ignore[arg-type]
            before = layout.prefix[layer].to(ks.dtype).unsqueeze(1)
            before = before.expand(-1, rows, -1, -1, -1)
            ks, vs = torch.cat([before[0], ks], dim=2), torch.cat([before[1], vs], dim=2)
        gathers = None
        if layout.gathers is not None:
            gathers = layout.gathers[start:stop].unflatten(0, (rows, length))
        ahead = ks.shape[2] - length
        mask = _mask(layout.slopes, gathers, seen, length, ahead, sliding_window, causal, qs)
        piece = F.scaled_dot_product_attention(
            qs,
            ks,
            vs,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=causal and mask is None and length > 1,
            scale=scaling,
            enable_gqa=qs.shape[1] != ks.shape[1],
        )
        piece = piece.transpose(1, 2).flatten(0, 1)
        if out is None:
            pieces.append(piece)
        else:
            out[start:stop] = piece
    joined = out if out is not None else torch.cat(pieces)
    return joined.unsqueeze(0), None


def _mask(
    slopes: Tensor | None,
    gathers: Tensor | None,
    own: Tensor | None,
    length: int,
    ahead: int,
    window: int | None,
    causal: bool,
    query: Tensor,
) -> Tensor | None:
    """``(length, ahead + length)`` bool or ``(heads, ...)`` additive mask, with ``(rows, 1, ...)``
    in front where tokens gather or rows have masks of their own, or None where the plain call says
    it all. Whatever is ahead of the row is seen by each of its tokens."""
    if window is not None and length <= window:
        window = None
    plain = window is None and slopes is None and gathers is None and own is None
    if plain and not (causal and ahead):
        return None
    steps = torch.arange(length, device=query.device)
    distance = steps[:, None] - steps[None, :]
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        seen &= distance.abs() < window
    if gathers is not None:
        seen = seen & through(gathers).unsqueeze(1)
    if own is not None:
        seen = seen & own.unsqueeze(1)
    if slopes is None:
        return F.pad(seen, (ahead, 0), value=True)
    bias = slopes.to(query)[:, None, None] * -distance.abs().to(query)
    return F.pad(bias.masked_fill(~seen, float("-inf")), (ahead, 0))


def through(gathers: Tensor) -> Tensor:
    """Who may see whom where some tokens gather what is ahead of them (GEM, Zhang et al. 2025).

    Behind them nothing that is ahead of them is seen, so they have to tell all that matters of it;
    nor do they see each other.

    Args:
        gathers: ``(n, length)`` bool, True on one run of tokens a row.

    Returns:
        ``(n, length, length)`` bool by query and key, apart from any direction.
    """
    passed = gathers.cumsum(dim=1) > 0
    behind = (passed & ~gathers).unsqueeze(2) & ~passed.unsqueeze(1)
    others = gathers.unsqueeze(2) & gathers.unsqueeze(1)
    others &= ~torch.eye(gathers.shape[1], dtype=torch.bool, device=gathers.device)
    return ~(behind | others)


def use_packed_attention(model: PreTrainedModel) -> list[tuple[Any, str]]:
    """Route the model's attention through :func:`attention`, which is plain SDPA without a layout.

    Returns:
        The configs that changed, each with the attention it named before.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    changed: list[tuple[Any, str]] = []
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        before = getattr(config, "_attn_implementation", None)
        if before in ("sdpa", "eager"):
            changed.append((config, before))
            config._attn_implementation = NAME
    return changed


@dataclass(frozen=True, slots=True)
class Packing:
    """How to pack one model: position ids start at ``first_position`` (2 in the RoBERTa family)."""

    first_position: int


def packed_forward(
    model: PreTrainedModel,
    layout: Layout,
    packing: Packing,
    *,
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Last hidden states of packed rows.

    Args:
        model: a base model, without a language-model head, that :func:`packing_of` accepts.
        layout: the rows' lengths.
        packing: what :func:`packing_of` found.
        input_ids: ``(tokens,)`` int64, or give ``inputs_embeds`` ``(tokens, d)``.

    Returns:
        ``(tokens, d)`` hidden states after the model's final norm.
    """
    output = packed_output(
        model, layout, packing, input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs
    )
    hidden: Tensor = output.last_hidden_state
    return hidden.squeeze(0)


def packed_output(
    model: PreTrainedModel,
    layout: Layout,
    packing: Packing,
    *,
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """As :func:`packed_forward`, but the model's whole output, whose batch is one long row."""
    device = (input_ids if input_ids is not None else inputs_embeds).device  # type: ignore[union-attr]
    # A 4-D mask is taken as final by transformers: none is built, and packed attention needs none.
    no_mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)
    return model(
        input_ids=None if input_ids is None else input_ids.unsqueeze(0),
        inputs_embeds=None if inputs_embeds is None else inputs_embeds.unsqueeze(0),
        attention_mask=no_mask,
        position_ids=layout.positions(packing.first_position, device),
        layout=layout,
        **kwargs,
    )


@torch.no_grad()
def packing_of(model: PreTrainedModel) -> Packing | None:
    """Whether the model packs exactly, found by comparing with its own forward on random rows.

    On success the model's attention implementation stays the packed one, which behaves as plain
    scaled-dot-product attention in every call without a layout. Relative position biases (T5,
    MPNet, Bloom) and logit caps (Gemma 2) do not pass through the attention registry; such models
    answer None and are run padded.
    """
    vocab = model.get_input_embeddings().weight
    was_training = model.training
    model.eval()
    tolerance = 1e-5 if vocab.dtype == torch.float32 else 5e-2
    try:
        generator = torch.Generator().manual_seed(0)
        low = min(10, vocab.shape[0] - 1)
        lengths = [3, 5]
        ids = [torch.randint(low, vocab.shape[0], (n,), generator=generator) for n in lengths]
        ids = [row.to(vocab.device) for row in ids]
        alone = torch.cat([model(input_ids=row[None]).last_hidden_state[0] for row in ids])
        padding_idx = getattr(model.config, "pad_token_id", None)
        changed = use_packed_attention(model)
        for first in (0, (padding_idx or 0) + 1):
            packing = Packing(first)
            try:
                together = packed_forward(model, Layout(lengths), packing, input_ids=torch.cat(ids))
            except (NotImplementedError, TypeError, ValueError, RuntimeError, IndexError):
                continue
            close = torch.allclose(together.float(), alone.float(), rtol=0.0, atol=tolerance)
            if together.shape == alone.shape and close:
                return packing
        # Set directly: models outside the attention registry refuse set_attn_implementation, and
        # would go on to add the boolean masks of a name they do not know.
        for config, before in changed:
            config._attn_implementation = before
        return None
    finally:
        model.train(was_training)

"""From a batch of packed ids to packed hidden states, by whichever forward the model allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.packed import Layout, Packing, packed_output
from mmembed.gpte.rows import Row, span_mask
from mmembed.gpte.states import padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TextBatch", "batch_of", "read_decoder_first", "read_packed", "read_padded"]


@dataclass(slots=True)
class TextBatch:
    """Rows joined along one token axis.

    Attributes:
        ids: ``(tokens,)`` int64.
        lengths: tokens of each row, on the host.
        spans: named ``(tokens,)`` bool masks.
        positions: ``(tokens,)`` int64 where they are not 0, 1, 2, ... in every row.
        bare: the rows' templates without their texts, each different one once; None where no
            prompt asks for template denoising.
        bare_rows: ``(n,)`` int64 indices into ``bare``, -1 for rows without.
        seen: ``(t, t)`` bool of each row by query and key, where its tokens do not all see each
            other; None for a row without.
    """

    ids: Tensor
    lengths: list[int]
    spans: dict[str, Tensor]
    positions: Tensor | None = None
    bare: TextBatch | None = None
    bare_rows: Tensor | None = None
    seen: Sequence[Tensor | None] = ()

    def __len__(self) -> int:
        return len(self.lengths)


def batch_of(rows: Sequence[Row], device: torch.device | str) -> TextBatch:
    """Join rows; their ``"bare"`` spans, where present, become the ``bare`` batch.

    Rows may have positions (``(t,)`` int64) and an attention mask (``(t, t)`` bool) of their own,
    as ``"positions"`` and ``"seen"`` of their extras.
    """
    lengths = [row.tokens for row in rows]
    ids = torch.tensor([i for row in rows for i in row.input_ids], dtype=torch.int64)
    names = {name for row in rows for name in row.spans} | {"instruction", "unpooled"}
    spans = {name: span_mask(rows, name).to(device) for name in sorted(names - {"bare"})}
    batch = TextBatch(ids.to(device), lengths, spans)
    if any("bare" in row.spans for row in rows):
        batch.bare, batch.bare_rows = _bare(rows, device)
    if any("seen" in row.extras for row in rows):
        masks = [row.extras.get("seen") for row in rows]
        batch.seen = [None if mask is None else mask.to(device) for mask in masks]
    if any("positions" in row.extras for row in rows):
        own = [row.extras.get("positions", torch.arange(row.tokens)) for row in rows]
        batch.positions = torch.cat(own).to(device)
    return batch


def _bare(rows: Sequence[Row], device: torch.device | str) -> tuple[TextBatch, Tensor]:
    """The different bare templates of these rows, with the positions they have in the rows."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    different: list[Row] = []
    positions: list[int] = []
    index = []
    for row in rows:
        if "bare" not in row.spans:
            index.append(-1)
            continue
        keep = [i for start, stop in row.spans["bare"] for i in range(start, stop)]
        ids = [row.input_ids[i] for i in keep]
        key = (tuple(ids), tuple(keep))
        if key not in found:
            found[key] = len(different)
            where = {old: new for new, old in enumerate(keep)}
            left_out = [
                (where[i], where[i] + 1)
                for start, stop in row.spans["unpooled"]
                for i in range(start, stop)
                if i in where
            ]
            different.append(Row(ids, len(ids), spans={"unpooled": left_out}))
            positions += keep
        index.append(found[key])
    batch = batch_of(different, device)
    batch.positions = torch.tensor(positions, dtype=torch.int64, device=device)
    return batch, torch.tensor(index, dtype=torch.int64, device=device)


def read_packed(
    model: PreTrainedModel,
    packing: Packing,
    batch: TextBatch,
    every_layer: bool = False,
    prefix: Sequence[Tensor] | None = None,
    slopes: Tensor | None = None,
    context: Tensor | None = None,
    gathers: Tensor | None = None,
) -> list[Tensor]:
    """``(tokens, d)`` states without padding: the last layer's, or every layer's.

    Args:
        prefix: keys and values ahead of every row, a tensor a layer; rows take the positions
            behind it.
        slopes: ALiBi slopes, which take the place of positions.
        context: ``(rows, c, d)`` embeddings ahead of every row's own, without a position; with none
            of the others.
        gathers: ``(tokens,)`` bool, tokens that gather what is ahead of them.
    """
    if context is not None:
        if batch.seen:
            raise ConfigError("rows with an attention mask of their own go with no context")
        return _read_after(model, packing, batch, every_layer, context)
    placed = batch.positions
    if slopes is not None:
        placed = torch.zeros_like(batch.ids)
    elif prefix is not None:
        own = placed if placed is not None else Layout(batch.lengths).positions().squeeze(0)
        placed = own.to(batch.ids.device) + prefix[0].shape[2]
    layout = Layout(
        batch.lengths,
        placed=placed,
        prefix=prefix,
        slopes=slopes,
        gathers=gathers,
        seen=batch.seen,
    )
    output = packed_output(
        model, layout, packing, input_ids=batch.ids, **_options(model, every_layer)
    )
    return [hidden.squeeze(0) for hidden in _states(output, every_layer)]


def _read_after(
    model: PreTrainedModel, packing: Packing, batch: TextBatch, every_layer: bool, context: Tensor
) -> list[Tensor]:
    """States of the rows' own tokens, which have seen the context ahead of them."""
    device, ahead = batch.ids.device, context.shape[1]
    own = batch.positions
    if own is None:
        own = Layout(batch.lengths).positions(device=device).squeeze(0)
    embeds = model.get_input_embeddings()(batch.ids).split(batch.lengths)
    nowhere, kept = own.new_zeros(ahead), own.new_zeros(ahead, dtype=torch.bool)
    joined, placed, mine = [], [], []
    for before, row, places in zip(context, embeds, own.split(batch.lengths), strict=True):
        joined += [before.to(row.dtype), row]
        placed += [nowhere, places]
        mine += [kept, torch.ones_like(places, dtype=torch.bool)]
    layout = Layout([ahead + length for length in batch.lengths], placed=torch.cat(placed))
    output = packed_output(
        model, layout, packing, inputs_embeds=torch.cat(joined), **_options(model, every_layer)
    )
    rows = torch.cat(mine)
    return [hidden.squeeze(0)[rows] for hidden in _states(output, every_layer)]


def read_padded(
    model: PreTrainedModel, pad_id: int, batch: TextBatch, every_layer: bool = False
) -> list[Tensor]:
    """As :func:`read_packed` through a padded forward, for models that do not pack.

    Padding goes to the right, where no causal row sees it and positions need no correction, and
    the mask comes from the lengths, never from the ids: an end token may be the pad token.

    Raises:
        ConfigError: the batch has positions or masks of its own, which such models do not take.
    """
    if batch.positions is not None:
        raise ConfigError(f"{type(model).__name__} takes no position ids: no template denoising")
    if batch.seen:
        raise ConfigError(f"{type(model).__name__} does not pack: no masks of rows' own")
    ids, mask = padded(batch.ids, batch.lengths, float(pad_id))
    options = _options(model, every_layer)
    output = model(input_ids=ids, attention_mask=mask.long(), **options)
    return [hidden[mask] for hidden in _states(output, every_layer)]


def read_decoder_first(
    model: PreTrainedModel, pad_id: int, batch: TextBatch, every_layer: bool = False
) -> list[Tensor]:
    """``(n, d)`` states of one decoder step from the start token (Sentence-T5, Ni et al. 2021).

    Raises:
        ConfigError: the model names no start token.
    """
    start = model.config.decoder_start_token_id
    if start is None:
        raise ConfigError(f"{type(model).__name__} has no decoder_start_token_id in its config")
    ids, mask = padded(batch.ids, batch.lengths, float(pad_id))
    first = ids.new_full((len(batch), 1), start)
    output = model(
        input_ids=ids,
        attention_mask=mask.long(),
        decoder_input_ids=first,
        use_cache=False,
        output_hidden_states=every_layer,
    )
    layers = output.decoder_hidden_states if every_layer else (output.last_hidden_state,)
    return [hidden[:, 0] for hidden in layers]


def _options(model: PreTrainedModel, every_layer: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"output_hidden_states": True} if every_layer else {}
    if getattr(model.config, "use_cache", None) and not model.config.is_encoder_decoder:
        options["use_cache"] = False
    return options


def _states(output: Any, every_layer: bool) -> Sequence[Tensor]:
    return output.hidden_states if every_layer else (output.last_hidden_state,)

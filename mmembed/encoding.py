"""From a stream of inputs to a stream of vectors: decode, prepare, batch by tokens, forward.

Three stages overlap: decoding in threads (``inputs.decode``), preparing the next window in one
thread, and the forward of this window in the caller's thread. Memory is bounded by two windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import torch

from mmembed.backbones.base import Backbone
from mmembed.encoded import Encoded, SparseVector
from mmembed.errors import InputError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.inputs.decode import decode_stream
from mmembed.inputs.decoded import DecodedItem, Page
from mmembed.inputs.items import ItemLike

__all__ = ["Reader", "Routing", "encode_stream", "token_budget_batches"]

# A window is what gets sorted by length: wide for text, which is small, narrow for pixels. Prepared
# pixels take up to 24 bytes each, and two windows are in memory.
_WINDOW_ITEMS = 1024
_WINDOW_MEDIA = 64
_WINDOW_PIXELS = 16_000_000
# Decoded and not yet taken: pillow takes 4 bytes a pixel, so a photo of 12 megapixels is 48 MB.
_AHEAD = 16
_AHEAD_PIXELS = 64_000_000

Reader: TypeAlias = Callable[[Any], Outputs]
"""From a backbone's batch to its outputs, dense vectors finished."""
Routing: TypeAlias = Callable[[Sequence[Row]], AbstractContextManager[Any]]
"""Makes the rows of a forward go through their own task adapters."""


@dataclass(slots=True)
class _Window:
    positions: list[int]
    rows: list[Row]
    texts: list[str | None]
    errors: list[Encoded]


def encode_stream(
    items: Iterable[ItemLike],
    backbone: Backbone,
    read: Reader,
    *,
    instruction: str = "",
    role: str = "",
    tasks: Callable[[int], str] | None = None,
    routing: Routing | None = None,
    apart: Callable[[str], bool] | None = None,
    batch_tokens: int = 4096,
) -> Iterator[Encoded]:
    """Encode inputs lazily, in order; one bad input never harms another.

    Args:
        items: inputs of any modality mix; consumed a bounded number ahead.
        backbone: the model.
        read: what is made of a batch.
        instruction: precedes every item that brings no instruction of its own.
        role: ``"query"``, ``"document"`` or ``""``.
        tasks: the task adapter of the item at a position; none by default.
        routing: applies those adapters.
        apart: whether the rows of an adapter need forwards of their own.
        batch_tokens: tokens of one forward; a longer single row runs alone.
    """

    def told(position: int, item: DecodedItem) -> DecodedItem:
        task = tasks(position) if tasks is not None else ""
        return replace(item, instruction=item.instruction or instruction, role=role, task=task)

    decoded = decode_stream(items, backbone.media_budget, window=_AHEAD, pixels=_AHEAD_PIXELS)
    windows = _windows(decoded, told)

    def prepare_next() -> _Window | None:
        window = next(windows, None)
        return None if window is None else _prepare(backbone, window)

    try:
        # Leaving the executor waits for its thread, so that `decoded` is idle when it is closed.
        with ThreadPoolExecutor(1, thread_name_prefix="mmembed-prepare") as executor:
            pending = executor.submit(prepare_next)
            while (window := pending.result()) is not None:
                pending = executor.submit(prepare_next)
                yield from _forward(backbone, read, routing, apart, window, batch_tokens)
    finally:
        decoded.close()


def _windows(
    decoded: Iterator[tuple[int, DecodedItem | InputError]],
    told: Callable[[int, DecodedItem], DecodedItem],
) -> Iterator[list[tuple[int, DecodedItem | InputError]]]:
    """Runs of decoded items small enough to hold and wide enough to sort."""
    window: list[tuple[int, DecodedItem | InputError]] = []
    media = pixels = 0
    for position, item in decoded:
        if isinstance(item, DecodedItem):
            found = item.pixels
            media += found > 0
            pixels += found
            item = told(position, item)
        window.append((position, item))
        if media >= _WINDOW_MEDIA or pixels >= _WINDOW_PIXELS or len(window) >= _WINDOW_ITEMS:
            yield window
            window, media, pixels = [], 0, 0
    if window:
        yield window


def _prepare(backbone: Backbone, window: list[tuple[int, DecodedItem | InputError]]) -> _Window:
    errors = [Encoded(p, error=e.at(p)) for p, e in window if isinstance(e, InputError)]
    good = [(p, item) for p, item in window if isinstance(item, DecodedItem)]
    try:
        rows = backbone.prepare([item for _, item in good])
    except InputError as error:
        if error.position is None:
            raise
        good, rows, bad = _one_by_one(backbone, good)
        errors += bad
    for (_, item), row in zip(good, rows, strict=True):
        row.task = item.task
    positions = [position for position, _ in good]
    return _Window(positions, rows, [_found_text(item) for _, item in good], errors)


def _one_by_one(
    backbone: Backbone, items: Sequence[tuple[int, DecodedItem]]
) -> tuple[list[tuple[int, DecodedItem]], list[Row], list[Encoded]]:
    """Rows of those items that can be prepared: however many cannot, each is tried once more."""
    good: list[tuple[int, DecodedItem]] = []
    rows: list[Row] = []
    bad: list[Encoded] = []
    for position, item in items:
        try:
            rows += backbone.prepare([item])
        except InputError as error:
            bad.append(Encoded(position, error=error.at(position)))
        else:
            good.append((position, item))
    return good, rows, bad


def _found_text(item: DecodedItem) -> str | None:
    """The text layers of an item's pages."""
    layers = [part.text for part in item.parts if isinstance(part, Page)]
    return "\n".join(layers) or None


@torch.inference_mode()
def _encode_rows(
    backbone: Backbone,
    read: Reader,
    routing: Routing | None,
    apart: Callable[[str], bool] | None,
    window: _Window,
    batch_tokens: int,
) -> Iterator[Encoded]:
    rows = window.rows
    for batch in _batches(rows, apart, batch_tokens):
        chosen = [rows[i] for i in batch]
        inputs = backbone.collate(chosen)
        if routing is None:
            outputs = read(inputs)
        else:
            with routing(chosen):
                outputs = read(inputs)
        yield from _rows_of(
            outputs, [window.positions[i] for i in batch], [window.texts[i] for i in batch]
        )


def _batches(
    rows: Sequence[Row], apart: Callable[[str], bool] | None, budget: int
) -> Iterator[list[int]]:
    """Batches of row numbers; those of an adapter that stands apart by themselves."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.task if apart and apart(row.task) else "", []).append(i)
    for group in groups.values():
        for batch in token_budget_batches([rows[i].tokens for i in group], budget):
            yield [group[i] for i in batch]


def _rows_of(
    outputs: Outputs, positions: Sequence[int], texts: Sequence[str | None]
) -> Iterator[Encoded]:
    """Each row on its own, on the host; one copy from the device an output."""
    dense = None if outputs.dense is None else outputs.dense.float().cpu().numpy()
    multi: list[Any] | None = None
    if outputs.multi is not None:
        assert outputs.multi_mask is not None
        lengths = outputs.multi_mask.sum(dim=1).tolist()
        kept = outputs.multi[outputs.multi_mask].float().cpu()
        multi = [part.numpy() for part in kept.split(lengths)]
    sparse = None if outputs.sparse is None else [_sparse(row) for row in outputs.sparse.cpu()]
    for i, (position, text) in enumerate(zip(positions, texts, strict=True)):
        yield Encoded(
            position,
            None if dense is None else dense[i],
            text=text,
            multi=None if multi is None else multi[i],
            sparse=None if sparse is None else sparse[i],
        )


def _sparse(row: torch.Tensor) -> SparseVector:
    indices = row.nonzero().squeeze(1)
    return SparseVector(indices.numpy(), row[indices].float().numpy())


def _forward(
    backbone: Backbone,
    read: Reader,
    routing: Routing | None,
    apart: Callable[[str], bool] | None,
    window: _Window,
    batch_tokens: int,
) -> list[Encoded]:
    results = list(window.errors)
    if window.rows:
        results += _encode_rows(backbone, read, routing, apart, window, batch_tokens)
    return sorted(results, key=lambda encoded: encoded.position)


def token_budget_batches(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices grouped so that a group costs at most ``budget`` tokens, longest rows first.

    Rows of equal length come together, which is what a packed forward runs fastest, and the
    first batch is the largest one, so that running out of memory shows at once.
    """
    order = iter(sorted(range(len(costs)), key=lambda i: (-costs[i], i)))
    batch: list[int] = list(islice(order, 1))
    spent = sum(costs[i] for i in batch)
    for index in order:
        if spent + costs[index] > budget:
            yield batch
            batch, spent = [], 0
        batch.append(index)
        spent += costs[index]
    if batch:
        yield batch

"""From a stream of inputs to a stream of vectors: decode, prepare, batch by tokens, forward.

Three stages overlap: decoding in threads (``inputs.decode``), preparing in threads too, and the
forward of one window in the caller's thread while the next is gathered. Whatever the number of
inputs, memory holds what is decoded ahead, groups in preparation, and two windows of rows.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import torch

from mmembed.backbones.base import Backbone
from mmembed.encoded import Encoded, SparseVector
from mmembed.errors import InputError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row, span_mask
from mmembed.inputs.decode import Decoded, decode_stream
from mmembed.inputs.decoded import DecodedItem, Page
from mmembed.inputs.items import ItemLike

__all__ = ["Reader", "Routing", "encode_stream", "token_budget_batches"]

# A window is what gets sorted by length: wide for text, which is small, narrow for pixels.
_WINDOW_ITEMS = 1024
_WINDOW_MEDIA = 64
_WINDOW_BYTES = 64 * 2**20
# What is prepared in one call: texts together, because the tokenizer works in parallel.
_GROUP_ITEMS = 256
_GROUP_MEDIA = 8
_GROUP_PIXELS = 4_000_000
_MAX_PREPARING = 4
# Decoded and not yet taken: pillow takes 4 bytes a pixel, so a photo of 12 megapixels is 48 MB.
_AHEAD = 16
_AHEAD_PIXELS = 32_000_000

Reader: TypeAlias = Callable[[Any], Outputs]
"""From a backbone's batch to its outputs, dense vectors finished."""
Routing: TypeAlias = Callable[[Sequence[Row]], AbstractContextManager[Any]]
"""Makes the rows of a forward go through their own task adapters."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A row, or the error in its stead, with its place in the stream."""

    position: int
    row: Row | InputError
    text: str | None = None  # layers of its pages
    media: bool = False

    @property
    def held(self) -> int:
        """Bytes of its tensors."""
        tensors = () if isinstance(self.row, InputError) else self.row.extras.values()
        return sum(tensor.nbytes for tensor in tensors)


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
    prepared = _prepared(backbone, _groups(decoded, told))
    windows = _windows(prepared)
    forward = _Forward(backbone, read, routing, apart, batch_tokens)
    try:
        # Leaving the executor waits for its thread, so that the generators are idle when closed.
        with ThreadPoolExecutor(1, thread_name_prefix="mmembed-gather") as executor:
            pending = executor.submit(next, windows, None)
            while (window := pending.result()) is not None:
                pending = executor.submit(next, windows, None)
                yield from forward(window)
    finally:
        prepared.close()
        decoded.close()


_Group: TypeAlias = "list[tuple[int, Decoded]]"


def _groups(
    decoded: Iterable[tuple[int, Decoded]], told: Callable[[int, DecodedItem], DecodedItem]
) -> Iterator[_Group]:
    """Runs of decoded items to prepare in one call: few large pictures, or many texts."""
    group: _Group = []
    media = pixels = 0
    for position, item in decoded:
        if isinstance(item, DecodedItem):
            media += item.pixels > 0
            pixels += item.pixels
            item = told(position, item)
        group.append((position, item))
        if media >= _GROUP_MEDIA or pixels >= _GROUP_PIXELS or len(group) >= _GROUP_ITEMS:
            yield group
            group, media, pixels = [], 0, 0
    if group:
        yield group


def _prepared(backbone: Backbone, groups: Iterator[_Group]) -> Generator[_Prepared, None, None]:
    """Rows in the order of the items; groups are prepared in threads, no more ahead than threads.

    Closing it drops the groups that wait; a thread in the middle of one ends after it.
    """
    workers = min(_MAX_PREPARING, os.cpu_count() or 1)
    pending: deque[Future[list[_Prepared]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mmembed-prepare")
    try:
        for group in groups:
            pending.append(pool.submit(_prepare, backbone, group))
            del group  # or its pictures stay until the next group is decoded
            if len(pending) >= workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _windows(prepared: Iterable[_Prepared]) -> Iterator[list[_Prepared]]:
    """Runs of rows small enough to hold and wide enough to sort."""
    window: list[_Prepared] = []
    media = held = 0
    for one in prepared:
        window.append(one)
        held += one.held
        media += one.media
        if media >= _WINDOW_MEDIA or held >= _WINDOW_BYTES or len(window) >= _WINDOW_ITEMS:
            yield window
            window, media, held = [], 0, 0
    if window:
        yield window


def _prepare(backbone: Backbone, group: _Group) -> list[_Prepared]:
    found = [_Prepared(p, error.at(p)) for p, error in group if isinstance(error, InputError)]
    good = [(p, item) for p, item in group if isinstance(item, DecodedItem)]
    try:
        rows: list[Row | InputError] = list(backbone.prepare([item for _, item in good]))
    except InputError as error:
        if error.position is None:
            raise
        rows = [_row_or_error(backbone, item) for _, item in good]
    for (position, item), row in zip(good, rows, strict=True):
        if isinstance(row, Row):
            row.task = item.task
            found.append(_Prepared(position, row, _found_text(item), item.pixels > 0))
        else:
            found.append(_Prepared(position, row.at(position)))
    return sorted(found, key=lambda one: one.position)


def _row_or_error(backbone: Backbone, item: DecodedItem) -> Row | InputError:
    """Where one item of a group cannot be prepared, each is tried once more by itself."""
    try:
        return backbone.prepare([item])[0]
    except InputError as error:
        return error


def _found_text(item: DecodedItem) -> str | None:
    """The text layers of an item's pages."""
    layers = [part.text for part in item.parts if isinstance(part, Page)]
    return "\n".join(layers) or None


@dataclass(frozen=True, slots=True)
class _Forward:
    """From a window of rows to vectors; see :func:`encode_stream`."""

    backbone: Backbone
    read: Reader
    routing: Routing | None
    apart: Callable[[str], bool] | None
    batch_tokens: int

    def __call__(self, window: Sequence[_Prepared]) -> list[Encoded]:
        found = [Encoded(p.position, error=p.row) for p in window if isinstance(p.row, InputError)]
        found += self._vectors(window)
        return sorted(found, key=lambda encoded: encoded.position)

    @torch.inference_mode()
    def _vectors(self, window: Sequence[_Prepared]) -> Iterator[Encoded]:
        good = [(one, one.row) for one in window if isinstance(one.row, Row)]
        rows = [row for _, row in good]
        for batch in _batches(rows, self.apart, self.batch_tokens):
            chosen = [rows[i] for i in batch]
            inputs = self.backbone.collate(chosen)
            with nullcontext() if self.routing is None else self.routing(chosen):
                outputs = self.read(inputs)
            yield from _rows_of(outputs, [good[i][0] for i in batch])


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


def _rows_of(outputs: Outputs, batch: Sequence[_Prepared]) -> Iterator[Encoded]:
    """Each row on its own, on the host; one copy from the device an output."""
    dense = None if outputs.dense is None else outputs.dense.float().cpu().numpy()
    multi: list[Any] | None = None
    if outputs.multi is not None:
        assert outputs.multi_mask is not None
        lengths = outputs.multi_mask.sum(dim=1).tolist()
        kept = outputs.multi[outputs.multi_mask].float().cpu()
        multi = [part.numpy() for part in kept.split(lengths)]
    sparse = None if outputs.sparse is None else [_sparse(row) for row in outputs.sparse.cpu()]
    for i, one in enumerate(batch):
        yield Encoded(
            one.position,
            None if dense is None else dense[i],
            text=one.text,
            multi=None if multi is None else multi[i],
            boxes=None if multi is None else _boxes_of(one.row, len(multi[i])),
            sparse=None if sparse is None else sparse[i],
        )


def _boxes_of(row: Row | InputError, kept: int) -> Any:
    """Where each of the row's ``kept`` token vectors lies on its picture, if that is known."""
    if isinstance(row, InputError) or row.boxes is None:
        return None
    boxes = torch.full((row.tokens, 4), torch.nan)
    boxes[span_mask([row], "visual")] = row.boxes
    if kept < row.tokens:  # a model may leave its instruction without vectors
        boxes = boxes[~span_mask([row], "instruction")]
    return boxes.numpy()


def _sparse(row: torch.Tensor) -> SparseVector:
    indices = row.nonzero().squeeze(1)
    return SparseVector(indices.numpy(), row[indices].float().numpy())


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

"""From a stream of inputs to a stream of vectors: decode, prepare, batch by tokens, forward.

Three stages overlap: decoding in threads (``inputs.decode``), preparing the next window in one
thread, and the forward of this window in the caller's thread. Memory is bounded by two windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmembed.backbones.base import Backbone
from mmembed.encoded import Encoded
from mmembed.errors import InputError
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates
from mmembed.inputs.decode import decode_stream
from mmembed.inputs.decoded import DecodedItem, Page
from mmembed.inputs.items import ItemLike

__all__ = ["encode_stream", "token_budget_batches"]

# A window is what gets sorted by length: wide for text, which is small, narrow for pixels.
_WINDOW_ITEMS = 1024
_WINDOW_MEDIA = 64

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(slots=True)
class _Window:
    positions: list[int]
    rows: list[Row]
    texts: list[str | None]
    errors: list[Encoded]


def encode_stream(
    items: Iterable[ItemLike],
    backbone: Backbone,
    pool: Callable[[TokenStates], Tensor],
    *,
    instruction: str = "",
    batch_tokens: int = 4096,
) -> Iterator[Encoded]:
    """Encode inputs lazily, in order; one bad input never harms another.

    Args:
        items: inputs of any modality mix; consumed a bounded number ahead.
        backbone: the model.
        pool: token states of ``n`` rows to ``(n, d)`` float32 vectors, normalised or not.
        instruction: precedes every item that brings no instruction of its own.
        batch_tokens: tokens of one forward; a longer single row runs alone.
    """
    decoded = decode_stream(items, backbone.media_budget, window=_WINDOW_MEDIA)
    windows = _windows(decoded, instruction)

    def prepare_next() -> _Window | None:
        window = next(windows, None)
        return None if window is None else _prepare(backbone, window)

    try:
        # Leaving the executor waits for its thread, so that `decoded` is idle when it is closed.
        with ThreadPoolExecutor(1, thread_name_prefix="mmembed-prepare") as executor:
            pending = executor.submit(prepare_next)
            while (window := pending.result()) is not None:
                pending = executor.submit(prepare_next)
                yield from _forward(backbone, pool, window, batch_tokens)
    finally:
        decoded.close()


def _windows(
    decoded: Iterator[tuple[int, DecodedItem | InputError]], instruction: str
) -> Iterator[list[tuple[int, DecodedItem | InputError]]]:
    """Runs of decoded items small enough to hold and wide enough to sort."""
    window: list[tuple[int, DecodedItem | InputError]] = []
    media = 0
    for position, item in decoded:
        if isinstance(item, DecodedItem):
            media += any(not isinstance(part, str) for part in item.parts)
            if instruction and not item.instruction:
                item = replace(item, instruction=instruction)
        window.append((position, item))
        if media >= _WINDOW_MEDIA or len(window) >= _WINDOW_ITEMS:
            yield window
            window, media = [], 0
    if window:
        yield window


def _prepare(backbone: Backbone, window: list[tuple[int, DecodedItem | InputError]]) -> _Window:
    errors = [Encoded(p, error=e.at(p)) for p, e in window if isinstance(e, InputError)]
    good = [(p, item) for p, item in window if isinstance(item, DecodedItem)]
    while True:
        try:
            rows = backbone.prepare([item for _, item in good])
        except InputError as error:
            if error.position is None:
                raise
            # The culprit is named by its place among the good ones; the others start again.
            position, _ = good.pop(error.position)
            errors.append(Encoded(position, error=error.at(position)))
            continue
        positions = [position for position, _ in good]
        return _Window(positions, rows, [_found_text(item) for _, item in good], errors)


def _found_text(item: DecodedItem) -> str | None:
    """The text layers of an item's pages."""
    layers = [part.text for part in item.parts if isinstance(part, Page)]
    return "\n".join(layers) or None


@torch.inference_mode()
def _encode_rows(
    backbone: Backbone,
    pool: Callable[[TokenStates], Tensor],
    rows: Sequence[Row],
    batch_tokens: int,
) -> Vector:
    vectors: Vector | None = None
    for batch in token_budget_batches([row.tokens for row in rows], batch_tokens):
        pooled = pool(backbone.forward(backbone.collate([rows[i] for i in batch])))
        block = pooled.float().cpu().numpy()
        if vectors is None:
            vectors = np.empty((len(rows), block.shape[1]), dtype=np.float32)
        vectors[batch] = block
    assert vectors is not None
    return vectors


def _forward(
    backbone: Backbone,
    pool: Callable[[TokenStates], Tensor],
    window: _Window,
    batch_tokens: int,
) -> list[Encoded]:
    results = list(window.errors)
    if window.rows:
        vectors = _encode_rows(backbone, pool, window.rows, batch_tokens)
        found = zip(window.positions, vectors, window.texts, strict=True)
        results += [Encoded(position, vector, text=text) for position, vector, text in found]
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

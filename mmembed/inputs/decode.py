"""Decode items, one at a time or as a stream that runs ahead of its consumer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem, DecodedPart
from mmembed.inputs.document import decode_page
from mmembed.inputs.image import decode_image
from mmembed.inputs.items import (
    DocumentPart,
    ImagePart,
    Item,
    ItemLike,
    Part,
    TextPart,
    VideoPart,
    parse_item,
)
from mmembed.inputs.unicode import valid_text
from mmembed.inputs.video import decode_video

__all__ = ["Decoded", "decode_item", "decode_stream"]

Decoded: TypeAlias = DecodedItem | InputError

_MAX_WORKERS = 8


def decode_item(item: ItemLike, budget: MediaBudget) -> DecodedItem:
    """Decode all parts of one item, in their order.

    Text is taken as it is, the empty string too; only lone surrogates are replaced, because
    nothing can encode them.

    Raises:
        InputError: a part cannot be decoded; the error names that part's source.
    """
    parsed = parse_item(item)
    return DecodedItem(
        parts=tuple(_decode_part(part, budget) for part in parsed.parts),
        instruction=valid_text(parsed.instruction or ""),
        label=parsed.label,
    )


def decode_stream(
    items: Iterable[ItemLike],
    budget: MediaBudget,
    *,
    workers: int | None = None,
    window: int | None = None,
    pixels: int | None = None,
) -> Generator[tuple[int, Decoded], None, None]:
    """Decode items in threads while the consumer works on those before them.

    Args:
        items: any iterable; it is read at most ``window`` items ahead, in the consumer's thread.
        budget: how much of each medium to decode.
        workers: decoding threads; by default one a core, at most 8. Items of text alone need none.
        window: items that may be in decoding or decoded and not yet taken, which bounds the memory;
            by default twice the workers.
        pixels: at most as many items of media wait as hold so many pixels, by the largest of the
            last ones, but always one a worker; None counts items alone.

    Yields:
        ``(position, decoded)`` in the order of ``items``. For an item that cannot be decoded,
        ``decoded`` is its :class:`InputError` with the position set, and the stream goes on.

    Closing the generator drops what is waiting; a thread in the middle of an item ends after it.
    """
    workers = workers or min(_MAX_WORKERS, os.cpu_count() or 1)
    window = max(workers, window or 2 * workers)
    media = _Media(workers, window, pixels)
    pending: deque[Future[Decoded] | Decoded] = deque()
    pool: ThreadPoolExecutor | None = None
    taken = 0
    try:
        for position, value in enumerate(items):
            try:
                item = parse_item(value)
            except InputError as error:
                pending.append(error.at(position))
            else:
                if all(isinstance(part, TextPart) for part in item.parts):
                    pending.append(_decode_or_error(item, budget, position))
                else:
                    pool = pool or ThreadPoolExecutor(workers, "mmembed-decode")
                    pending.append(pool.submit(_decode_or_error, item, budget, position))
                    media.waiting += 1
            # Text is ready at once, and waits only for media before it.
            while pending and (
                len(pending) >= window or media.full or not isinstance(pending[0], Future)
            ):
                yield taken, media.taken(pending.popleft())
                taken += 1
        while pending:
            yield taken, media.taken(pending.popleft())
            taken += 1
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_or_error(item: Item, budget: MediaBudget, position: int) -> Decoded:
    try:
        return decode_item(item, budget)
    except InputError as error:
        return error.at(position)


class _Media:
    """How many items of media may wait: their sizes are known only when they are decoded."""

    def __init__(self, workers: int, window: int, pixels: int | None) -> None:
        self.waiting = 0
        self._workers, self._window, self._pixels = workers, window, pixels
        self._sizes: deque[int] = deque(maxlen=window)

    @property
    def full(self) -> bool:
        if self._pixels is None:
            return False
        largest = max(self._sizes, default=self._pixels)
        allowed = max(self._workers, self._pixels // max(1, largest))
        return self.waiting >= min(self._window, allowed)

    def taken(self, pending: Future[Decoded] | Decoded) -> Decoded:
        """What was decoded, and no longer waits."""
        if not isinstance(pending, Future):
            return pending
        self.waiting -= 1
        decoded = pending.result()
        if isinstance(decoded, DecodedItem):
            self._sizes.append(decoded.pixels)
        return decoded


def _decode_part(part: Part, budget: MediaBudget) -> DecodedPart:
    match part:
        case TextPart(text):
            return valid_text(text)
        case ImagePart(source):
            return decode_image(source, budget)
        case VideoPart():
            return decode_video(part, budget)
        case DocumentPart():
            return decode_page(part, budget)

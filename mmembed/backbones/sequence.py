"""From decoded items to rows: token ids, pixels, and where the visual tokens go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from mmembed.backbones.tiles import tiles_of
from mmembed.errors import InputError
from mmembed.gpte.rows import Row
from mmembed.inputs.decoded import DecodedItem, Frames, Page

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from transformers import PreTrainedTokenizerFast

__all__ = ["Limits", "SequenceBuilder"]


class Limits(Protocol):
    """What the builder reads of a model's settings."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def max_images(self) -> int:
        """Most images of one item."""
        ...

    @property
    def page_tiles(self) -> int:
        """Tiles that a page is read in."""
        ...

    @property
    def beside_words(self) -> int:
        """Visual tokens that an item's images share where it has words; 0 for no such limit."""
        ...


@dataclass(slots=True)
class _Words:
    text: str
    is_instruction: bool = False


# What an item becomes before tokens are counted: words, and images in between.
_Piece = _Words | Tensor


class SequenceBuilder:
    """Lays out items as sequences ``prefix, parts in their order, suffix``.

    Args:
        tokenizer: a fast tokenizer; the prefix and suffix are its own special tokens.
        pixels: makes one image's pixels for the vision tower.
        image_tokens: visual tokens of one image.
        least_tokens: of each of several images, which share them.
        limits: of text and of media.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        pixels: Callable[[PILImage], Tensor],
        image_tokens: int,
        least_tokens: int,
        limits: Limits,
    ) -> None:
        self._backend: Any = tokenizer.backend_tokenizer
        # Cuts are made here, where media tokens are known; tokenizer.json may carry its own.
        self._backend.no_truncation()
        self._backend.no_padding()
        empty = self._backend.encode("a", add_special_tokens=True)
        special = [bool(flag) for flag in empty.special_tokens_mask]
        first = special.index(False)
        last = len(special) - special[::-1].index(False)
        self._prefix, self._suffix = empty.ids[:first], empty.ids[last:]
        pad = tokenizer.pad_token_id
        self._placeholder = 0 if pad is None else int(pad)
        self._pixels = pixels
        self._image_tokens = image_tokens
        self._least_tokens = least_tokens
        self._limits = limits

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included."""
        around = len(self._prefix) + len(self._suffix)
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one.ids) + around for one in encoded]

    def rows(self, items: Sequence[DecodedItem]) -> list[Row]:
        """One row an item, in order; see :meth:`mmembed.backbones.base.Backbone.prepare`."""
        pieces: list[list[_Piece]] = []
        for position, item in enumerate(items):
            try:
                pieces.append(self._pieces(item))
            except InputError as error:
                raise error.at(position) from None
        words = [piece.text for row in pieces for piece in row if isinstance(piece, _Words)]
        # One call for the whole batch, because the tokenizer works in parallel within a call.
        encoded = iter(self._backend.encode_batch_fast(words, add_special_tokens=False))
        rows = []
        for position, (item, row) in enumerate(zip(items, pieces, strict=True)):
            ids = [next(encoded).ids if isinstance(piece, _Words) else None for piece in row]
            try:
                rows.append(self._row(item, row, ids))
            except InputError as error:
                raise error.at(position) from None
        return rows

    def image_row(self, tokens: int) -> Row:
        """The row of one image of so many tokens, whose pixels are elsewhere."""
        start = len(self._prefix)
        stop = start + tokens
        ids = [*self._prefix, *[self._placeholder] * tokens, *self._suffix]
        return Row(ids, len(ids), spans={"visual": [(start, stop)]})

    def _pieces(self, item: DecodedItem) -> list[_Piece]:
        pieces: list[_Piece] = []
        if item.instruction:
            pieces.append(_Words(item.instruction, is_instruction=True))
        for part in item.parts:
            if isinstance(part, str):
                pieces.append(_Words(part))
            elif isinstance(part, Frames):
                pieces += self._frames(part)
            elif isinstance(part, Page):
                pieces += self._page(part)
            else:
                pieces.append(self._pixels(part))
        images = sum(isinstance(piece, Tensor) for piece in pieces)
        if images > self._limits.max_images:
            raise InputError(
                item.label,
                f"brings {images} images, frames and tiles, and {self._limits.max_images} fit",
                "split it into several items, or raise max_images",
            )
        return pieces

    def _frames(self, frames: Frames) -> list[_Piece]:
        from PIL import Image

        # An odd clip repeats its last frame, which would count twice in the mean.
        repeated = len(frames.indices) > 1 and frames.indices[-1] == frames.indices[-2]
        pixels = frames.pixels[:-1] if repeated else frames.pixels
        return [self._pixels(Image.fromarray(frame)) for frame in pixels]

    def _page(self, page: Page) -> list[_Piece]:
        whole: list[_Piece] = [self._pixels(page.image)]
        if page.text.strip():
            # The text layer says what tiles would show, in tokens that the encoder reads best.
            return [*whole, _Words(page.text)]
        return whole + [self._pixels(t) for t in tiles_of(page.image, self._limits.page_tiles)]

    def _row(
        self, item: DecodedItem, pieces: Sequence[_Piece], encoded: Sequence[list[int] | None]
    ) -> Row:
        room = self._limits.max_tokens - len(self._prefix) - len(self._suffix)
        each = self._tokens_each(pieces)
        ids = list(self._prefix)
        spans: dict[str, list[tuple[int, int]]] = {}
        pixels: list[Tensor] = []
        for piece, words in zip(pieces, encoded, strict=True):
            start = len(ids)
            if isinstance(piece, Tensor):
                pixels.append(piece)
                ids += [self._placeholder] * each
                spans.setdefault("visual", []).append((start, len(ids)))
                continue
            assert words is not None
            if piece.is_instruction:
                if len(words) >= room:
                    raise InputError(
                        item.label,
                        f"its instruction takes {len(words)} of {room} tokens",
                        "shorten the instruction",
                    )
                spans["instruction"] = [(start, start + len(words))]
            ids += words[:room]
            room -= min(room, len(words))
        ids += self._suffix
        extras = {"pixels": torch.stack(pixels)} if pixels else {}
        return Row(ids, len(ids), extras, spans)

    def _tokens_each(self, pieces: Sequence[_Piece]) -> int:
        """Visual tokens of each image of an item.

        Frames and images of one item share the room of one image, or the words beside them would
        drown, and so would the special tokens among eight frames.
        """
        images = sum(isinstance(piece, Tensor) for piece in pieces)
        words = any(isinstance(piece, _Words) and not piece.is_instruction for piece in pieces)
        room = self._image_tokens
        if words and self._limits.beside_words:
            room = min(room, self._limits.beside_words)
        return max(self._least_tokens, room // max(1, images))

"""BERT's own token count at many times the speed: all words of a file at once, each from a table.

Cutting a file needs the tokens of each of its rows. The tokenizer would take several times as long
as the parse; here a file costs a handful of array operations, and only a word that the table does
not hold is cut into word pieces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from codeembed.tokens import TokenizerCounter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["WordPieceCounter", "fast_counter"]

_Ints = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]

_LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyz"
_MARKS = bytes(set(range(33, 127)) - set(_LETTERS) - set(_LETTERS.upper()))
# By byte: a gap, part of a word, a token of its own, or a matter for the tokenizer itself.
_WORD, _MARK, _OTHER = 1, 2, 3
_KIND_OF = dict.fromkeys(_LETTERS + _LETTERS.upper(), _WORD)
_KIND_OF |= dict.fromkeys(_MARKS, _MARK) | dict.fromkeys(b" \t\r\n", 0)
_KINDS = bytes(_KIND_OF.get(byte, _OTHER) for byte in range(256))

# A word of up to this many bytes is its own key, as two numbers.
_LONGEST_KEY = 16
_FIRST_8, _NEXT_8 = (
    np.array([(1 << 8 * min(max(size - skip, 0), 8)) - 1 for size in range(17)], np.uint64)
    for skip in (0, 8)
)
_SLOT_BITS = 16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_MAX_KNOWN = 300_000


class WordPieceCounter:
    """Counts like a lower-casing BERT tokenizer, special tokens included; picklable.

    A text of printable ASCII is cut at white space and punctuation, every mark is one token, and a
    word is as many as its word pieces. Other texts go to the tokenizer itself.

    Args:
        tokenizer: BERT's: lower case, split at punctuation, WordPiece.
    """

    rows_add_up = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._exact = TokenizerCounter(tokenizer)
        self._special = self._exact([""])[0]
        self._pieces = _Pieces(tokenizer)

    def __call__(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        parts = [text.encode("utf-8", "surrogatepass") + b"\n" for text in texts]
        starts = [0, *accumulate(map(len, parts))]
        counts = self._counts(b"".join(parts), starts, texts.__getitem__)
        return [self._special + count for count in counts]

    def of_rows(self, data: bytes, starts: Sequence[int]) -> list[int]:
        """Tokens of each row of a file, without special tokens.

        Args:
            data: The file.
            starts: Offset of each row, and the length of the file.
        """
        return self._counts(
            data,
            starts,
            lambda row: data[starts[row] : starts[row + 1]].decode("utf-8", "replace"),
        )

    def _counts(
        self, data: bytes, starts: Sequence[int], text_of: Callable[[int], str]
    ) -> list[int]:
        if len(starts) < 2:
            return []
        kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
        edges = np.array(starts)
        # Each token of a row lies after so many others of its kind, which differ at the edges.
        before = (kinds == _MARK).nonzero()[0].searchsorted(edges)
        before += self._pieces_before(data, kinds, edges)
        result: list[int] = (before[1:] - before[:-1]).tolist()
        odd = self._odd_places(data, kinds)
        others = sorted(set((edges.searchsorted(odd, "right") - 1).tolist()))
        exact = self._exact([text_of(row) for row in others])
        for row, count in zip(others, exact, strict=True):
            result[row] = count - self._special
        return result

    def _pieces_before(self, data: bytes, kinds: npt.NDArray[np.uint8], edges: _Ints) -> _Ints:
        """``(edges,)`` word pieces of all words that begin before each edge."""
        is_word = np.zeros(len(kinds) + 2, bool)
        np.equal(kinds, _WORD, out=is_word[1:-1])
        changes = (is_word[1:] != is_word[:-1]).nonzero()[0]
        begins = changes[0::2]
        sums = np.zeros(len(begins) + 1, np.int64)
        self._pieces.of(data.lower(), begins, changes[1::2]).cumsum(out=sums[1:])
        return sums[begins.searchsorted(edges)]

    def _odd_places(self, data: bytes, kinds: npt.NDArray[np.uint8]) -> list[int]:
        """Where something is that only the tokenizer knows: other characters, special tokens."""
        places: list[int] = (kinds == _OTHER).nonzero()[0].tolist()
        for name in self._pieces.special:
            at = data.find(name)
            while at >= 0:
                places.append(at)
                at = data.find(name, at + 1)
        return places


class _Pieces:
    """How many word pieces each word has: greedily the longest first, as WordPiece does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        kinds = json.loads(tokenizer.to_str())
        model = kinds["model"]
        self.special = [each["content"].encode() for each in kinds.get("added_tokens", ())]
        prefix: bytes = model["continuing_subword_prefix"].encode()
        names = [name.encode() for name in model["vocab"] if name.isascii()]
        self._longest_word: int = model["max_input_chars_per_word"]
        self._longest_piece = max(map(len, names))
        self._starting = frozenset(names)
        self._continuing = frozenset(
            name[len(prefix) :] for name in names if name.startswith(prefix)
        )
        self._forget()

    def _forget(self) -> None:
        self._known: dict[bytes, int] = {}
        # Each slot holds the last word that fell into it; a word whose slot is taken is looked up
        # in the dictionary, so that nothing but time depends on what is where.
        self._first: _Keys = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._second: _Keys = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._count: _Ints = np.zeros(1 << _SLOT_BITS, np.int64)

    def of(self, data: bytes, begins: _Ints, ends: _Ints) -> _Ints:
        """``(words,)`` pieces of the words between these offsets of lower-case text."""
        sizes = ends - begins
        # Eight bytes from any place as a number, little end first, so that a mask cuts a word off.
        padded = data + bytes(_LONGEST_KEY)
        numbers = np.ndarray((len(data) + 8,), "<u8", padded, strides=(1,))
        first = numbers[begins] & _FIRST_8[np.minimum(sizes, _LONGEST_KEY)]
        second = numbers[begins + 8] & _NEXT_8[np.minimum(sizes, _LONGEST_KEY)]
        slots = ((first ^ second * _MIX) * _SPREAD) >> np.uint64(64 - _SLOT_BITS)
        counts = self._count[slots]
        is_there = (self._first[slots] == first) & (self._second[slots] == second)
        is_there &= sizes <= _LONGEST_KEY
        absent = (~is_there).nonzero()[0]
        if len(absent):
            counts[absent] = [
                self._of_word(data[begin:end])
                for begin, end in zip(begins[absent].tolist(), ends[absent].tolist(), strict=True)
            ]
            fits = absent[sizes[absent] <= _LONGEST_KEY]
            self._first[slots[fits]] = first[fits]
            self._second[slots[fits]] = second[fits]
            self._count[slots[fits]] = counts[fits]
        return counts

    def _of_word(self, word: bytes) -> int:
        count = self._known.get(word)
        if count is None:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            count = self._known[word] = self._cut(word)
        return count

    def _cut(self, word: bytes) -> int:
        if word in self._starting:
            return 1
        if len(word) > self._longest_word:
            return 1  # the unknown token
        pieces = self._starting
        count = start = 0
        while start < len(word):
            end = min(len(word), start + self._longest_piece)
            while word[start:end] not in pieces:
                end -= 1
                if end == start:
                    return 1
            count += 1
            start = end
            pieces = self._continuing
        return count

    def __getstate__(self) -> dict[str, object]:
        learnt = ("_known", "_first", "_second", "_count")
        return {name: each for name, each in self.__dict__.items() if name not in learnt}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()


def fast_counter(tokenizer: Tokenizer) -> WordPieceCounter | TokenizerCounter:
    """The quick counter where the tokenizer is BERT's and lower-cases, else the exact one."""
    exact = TokenizerCounter(tokenizer)
    normalizer = json.loads(tokenizer.to_str())["normalizer"] or {}
    if exact.rows_add_up and normalizer.get("lowercase") and normalizer.get("clean_text"):
        return WordPieceCounter(tokenizer)
    return exact

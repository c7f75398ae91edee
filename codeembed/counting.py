"""BERT's own token count at many times the speed: all words of a file at once, each from a table.

Cutting a file needs the tokens of each of its rows. The tokenizer would take several times as long
as the parse; here a file costs a handful of array operations, and only a word that the table does
not hold is cut into word pieces.
"""

from __future__ import annotations

import json
import re
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

_LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyz"
_MARKS = bytes(set(range(33, 127)) - set(_LETTERS) - set(_LETTERS.upper()))
# By byte: a gap, a token of its own, a matter for the tokenizer itself, or a lower-case letter.
_MARK, _OTHER = 1, 2
_CODE_OF = dict(zip(_LETTERS + _LETTERS.upper(), _LETTERS * 2, strict=True))
_CODE_OF |= dict.fromkeys(_MARKS, _MARK) | dict.fromkeys(b" \t\r\n", 0)
_CODES = bytes(_CODE_OF.get(byte, _OTHER) for byte in range(256))

# A word of up to this many bytes is its own key; that of a longer one is zero. Keys are copied as
# one value each, which is quick, and compared as two numbers, little end first.
_LONGEST_KEY = 16
_KEY = np.dtype("V16")
_MASKS = np.frombuffer(
    b"".join((b"\xff" * size).ljust(_LONGEST_KEY, b"\0") for size in range(_LONGEST_KEY + 1))
    + bytes(_LONGEST_KEY),
    _KEY,
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
        added = json.loads(tokenizer.to_str()).get("added_tokens", ())
        names = [re.escape(each["content"].encode()) for each in added]
        self._added = re.compile(b"|".join(names) or b"(?!)")
        self._words = _Words(tokenizer)

    def __call__(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        parts = [text.encode("utf-8", "surrogatepass") + b"\n" for text in texts]
        starts = [0, *accumulate(map(len, parts))]
        counts = self._counts(b"".join(parts), starts, texts.__getitem__)
        return [self._special + count for count in counts]

    def of_rows(self, data: bytes, starts: Sequence[int] | _Ints) -> list[int]:
        """Tokens of each row of a file, without special tokens.

        Args:
            data: The file.
            starts: Offset of each row, and the length of the file; no row is empty.
        """
        return self._counts(
            data,
            starts,
            lambda row: data[starts[row] : starts[row + 1]].decode("utf-8", "replace"),
        )

    def _counts(
        self, data: bytes, starts: Sequence[int] | _Ints, text_of: Callable[[int], str]
    ) -> list[int]:
        if len(starts) < 2:
            return []
        # With a gap before the first word, and as much after the last as a key is long.
        text = (b" " + data + b" " * _LONGEST_KEY).translate(_CODES)
        codes = np.frombuffer(text, np.uint8)
        is_word = codes > _OTHER
        edges = (is_word[1:] != is_word[:-1]).nonzero()[0] + 1
        tokens = (codes == _MARK).astype(np.int32)
        tokens[edges[0::2]] = self._words.pieces(text, edges[0::2], edges[1::2])
        begins = np.asarray(starts)[:-1] + 1
        counts: list[int] = np.add.reduceat(tokens, begins).tolist()
        odd = (codes == _OTHER).nonzero()[0].tolist()
        odd += [match.start() + 1 for match in self._added.finditer(data)]
        if odd:
            rows = sorted(set((begins.searchsorted(odd, "right") - 1).tolist()))
            for row, count in zip(rows, self._exact([text_of(row) for row in rows]), strict=True):
                counts[row] = count - self._special
        return counts


class _Words(dict[bytes, int]):
    """How many word pieces each word of lower-case letters and digits has."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._cut = tokenizer.model.tokenize
        # Each slot holds the last word that fell into it; a word whose slot is taken is looked up
        # in the dictionary, so that nothing but time depends on what is where. No word is all ones.
        self._keys = np.full((1 << _SLOT_BITS, 2), ~np.uint64(0), "<u8").view(_KEY)[:, 0]
        self._counts = np.zeros(1 << _SLOT_BITS, np.int32)

    def __missing__(self, word: bytes) -> int:
        if len(self) >= _MAX_KNOWN:
            self.clear()
        count = self[word] = len(self._cut(word.decode("ascii")))
        return count

    def __reduce__(self) -> tuple[type[_Words], tuple[Tokenizer]]:
        return _Words, (self._tokenizer,)

    def pieces(self, text: bytes, begins: _Ints, ends: _Ints) -> npt.NDArray[np.int32]:
        """``(words,)`` pieces of the words between these offsets, with 16 bytes after the last."""
        sizes = np.minimum(ends - begins, _LONGEST_KEY + 1)
        shape = (len(text) - _LONGEST_KEY + 1,)
        anywhere: npt.NDArray[np.void] = np.ndarray(shape, _KEY, text, strides=(1,))
        keys = anywhere[begins].view("<u8") & _MASKS[sizes].view("<u8")
        first, second = keys[0::2], keys[1::2]
        slots = ((first ^ second * _MIX) * _SPREAD) >> np.uint64(64 - _SLOT_BITS)
        slots = slots.view(np.int64)
        counts = self._counts[slots]
        differs = self._keys[slots].view("<u8") != keys
        absent = (differs[0::2] | differs[1::2] | (sizes > _LONGEST_KEY)).nonzero()[0]
        if len(absent):
            spans = zip(begins[absent].tolist(), ends[absent].tolist(), strict=True)
            counts[absent] = [self[text[begin:end]] for begin, end in spans]
            self._keys[slots[absent]] = keys.view(_KEY)[absent]
            self._counts[slots[absent]] = counts[absent]
        return counts


def fast_counter(tokenizer: Tokenizer) -> WordPieceCounter | TokenizerCounter:
    """The quick counter where the tokenizer is BERT's and lower-cases, else the exact one."""
    exact = TokenizerCounter(tokenizer)
    normalizer = json.loads(tokenizer.to_str())["normalizer"] or {}
    if exact.rows_add_up and normalizer.get("lowercase") and normalizer.get("clean_text"):
        return WordPieceCounter(tokenizer)
    return exact

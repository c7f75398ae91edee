"""The bytes of one file with its lines, and offsets in bytes, characters and lines."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Source"]

_BOM = b"\xef\xbb\xbf"
_LINE_FEED = 10
_IS_SPACE = np.array([bytes([byte]).isspace() for byte in range(256)])


class Source:
    """A file's bytes, kept as they are but for a leading UTF-8 byte-order mark, which is dropped.

    Offsets are bytes unless a name says otherwise; rows are 0-based, line numbers 1-based. As in
    tree-sitter only ``\\n`` ends a row, so a ``\\r`` belongs to the row before it.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data.removeprefix(_BOM)

    @cached_property
    def row_starts(self) -> list[int]:
        """Byte offset of every row, and one past the end: ``row_count + 1`` entries."""
        starts: list[int] = self.starts.tolist()
        return starts

    @cached_property
    def row_count(self) -> int:
        """How many rows there are; a line feed at the end begins none."""
        return len(self.starts) - 1

    @cached_property
    def rows(self) -> list[bytes]:
        """Every row with its line end; their concatenation is :attr:`data`."""
        return [self.data[start:end] for start, end in pairwise(self.row_starts)]

    @cached_property
    def is_blank(self) -> list[bool]:
        """Per row, whether it holds nothing but ASCII white space."""
        text, starts = np.frombuffer(self.data, np.uint8), self.starts
        lasts = np.maximum(starts[1:] - 2, starts[:-1])
        maybe = _IS_SPACE[text[starts[:-1]]] & _IS_SPACE[text[lasts]]
        blank = [False] * self.row_count
        # Most rows do not both begin and end with white space.
        for row in maybe.nonzero()[0].tolist():
            blank[row] = self.data[self.row_starts[row] : self.row_starts[row + 1]].isspace()
        return blank

    def rows_that_begin_with(self, mark: bytes) -> list[int]:
        """The rows whose first bytes that are not white space are ``mark``."""
        found = []
        at = self.data.find(mark)
        while at >= 0:
            row = bisect_right(self.row_starts, at) - 1
            if not self.data[self.row_starts[row] : at].strip():
                found.append(row)
            at = self.data.find(mark, self.row_starts[row + 1])
        return found

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """:attr:`row_starts` as an array."""
        feeds = (np.frombuffer(self.data, np.uint8) == _LINE_FEED).nonzero()[0]
        has_rest = bool(self.data) and not self.data.endswith(b"\n")
        starts = np.zeros(len(feeds) + 1 + has_rest, np.int64)
        np.add(feeds, 1, out=starts[1 : len(feeds) + 1])
        starts[-1] = len(self.data)
        return starts

    @cached_property
    def is_utf8(self) -> bool:
        """Whether every byte is valid UTF-8; if not, :meth:`text` holds replacement characters."""
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    @cached_property
    def _row_chars(self) -> list[int]:
        chars = [0]
        for row in self.rows:
            chars.append(chars[-1] + len(_decode(row)))
        return chars

    def row_of(self, offset: int) -> int:
        """The row that holds the byte at ``offset``; the last row for the end of the file."""
        return max(0, min(bisect_right(self.row_starts, offset), self.row_count) - 1)

    def char_offset(self, offset: int) -> int:
        """Where the character that starts at byte ``offset`` is in ``text(0, len(data))``."""
        row = self.row_of(offset)
        # No character, valid or not, crosses a line feed, so rows decode apart from each other.
        return self._row_chars[row] + len(_decode(self.data[self.row_starts[row] : offset]))

    def text(self, start: int, end: int) -> str:
        """Bytes ``start`` to ``end`` as text; invalid UTF-8 becomes U+FFFD."""
        return self.data[start:end].decode("utf-8", "replace")

    def trim(self, first: int, end: int) -> tuple[int, int]:
        """Rows ``first`` to ``end`` (exclusive) without the blank ones at either side."""
        while first < end and self.is_blank[first]:
            first += 1
        while end > first and self.is_blank[end - 1]:
            end -= 1
        return first, end

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Byte range of rows ``first`` to ``end`` (exclusive), without the last line end."""
        stop = self.row_starts[end]
        if end > first:
            last = self.data[self.row_starts[end - 1] : stop]
            stop -= len(last) - len(last.rstrip(b"\r\n"))
        return self.row_starts[first], stop


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")

"""The bytes of one file with its lines, and offsets in bytes, characters and lines."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

__all__ = ["Source"]

_BOM = b"\xef\xbb\xbf"


class Source:
    """A file's bytes, kept as they are but for a leading UTF-8 byte-order mark, which is dropped.

    Offsets are bytes unless a name says otherwise; rows are 0-based, line numbers 1-based. As in
    tree-sitter only ``\\n`` ends a row, so a ``\\r`` belongs to the row before it.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data.removeprefix(_BOM)

    @cached_property
    def rows(self) -> list[bytes]:
        """Every row with its line end; their concatenation is :attr:`data`."""
        rows = self.data.split(b"\n")
        last = rows.pop()
        rows = [row + b"\n" for row in rows]
        return [*rows, last] if last else rows

    @cached_property
    def row_starts(self) -> list[int]:
        """Byte offset of every row, and one past the end: ``len(rows) + 1`` entries."""
        starts = [0]
        for row in self.rows:
            starts.append(starts[-1] + len(row))
        return starts

    @cached_property
    def is_blank(self) -> list[bool]:
        """Per row, whether it holds nothing but ASCII white space."""
        return [not row or row.isspace() for row in self.rows]

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
        return max(0, min(bisect_right(self.row_starts, offset), len(self.rows)) - 1)

    def char_offset(self, offset: int) -> int:
        """Where the character that starts at byte ``offset`` is in ``text(0, len(data))``."""
        row = self.row_of(offset)
        # No character, valid or not, crosses a line feed, so rows decode apart from each other.
        return self._row_chars[row] + len(_decode(self.data[self.row_starts[row] : offset]))

    def text(self, start: int, end: int) -> str:
        """Bytes ``start`` to ``end`` as text; invalid UTF-8 becomes U+FFFD."""
        return _decode(self.data[start:end])

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
            last = self.rows[end - 1]
            stop -= len(last) - len(last.rstrip(b"\r\n"))
        return self.row_starts[first], stop


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")

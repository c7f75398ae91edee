"""Cut a file into chunks that lose nothing and fit the model.

Every byte that is not white space lies in exactly one chunk, and no chunk holds more tokens than
the limit, as counted by the model's own tokenizer. Code is cut along its syntax tree, Markdown at
its headings, everything else at blank rows and indentation. Skeletons of big classes come beside
the chunks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codeembed.cut import Sizes, Units, heading_units, pack, row_units, segments, tree_units
from codeembed.languages import Language, detect, language, pack_language
from codeembed.notebook import MARK
from codeembed.outline import Definition, Outline, code_outline, markdown_outline
from codeembed.pack_languages import has_pack
from codeembed.parse import DEFAULT_TIME_LIMIT, ParseTimeoutError, parse
from codeembed.parse_worker import ParserFailedError, ParseWorker, shared_worker
from codeembed.skeleton import SKELETON, fit_skeletons, skeletons
from codeembed.source import Source
from mmembed.errors import ConfigError

__all__ = ["Chunk", "ChunkedFile", "Chunker", "CountTokens", "Method"]

CountTokens = Callable[[list[str]], list[int]]
"""Tokens that the model sees for each text, special tokens included.

A counter whose ``rows_add_up`` is true may also have ``of_rows``: see :data:`CountRows`.
"""

CountRows = Callable[[bytes, npt.NDArray[np.int64]], list[int]]
"""Tokens of each row of a file without special tokens, given where rows start and the file ends."""

_MIN_ROOM = 8
_MAX_NAMES = 4
_CACHED_ROWS = 100_000


class Method(StrEnum):
    """How a file was cut."""

    TREE = "tree"
    HEADINGS = "headings"
    LINES = "lines"
    LINES_AFTER_TIMEOUT = "lines-after-timeout"
    LINES_AFTER_FAILURE = "lines-after-grammar-failure"
    LINES_WITHOUT_GRAMMAR = "lines-without-grammar"
    """A language of the extra ``all-languages``, which is not installed."""


class Chunk(NamedTuple):
    """A piece of a file.

    Attributes:
        text: The piece, with the indentation of its first line.
        start_byte: Offset of the first byte in the file without its byte-order mark.
        end_byte: Offset after the last byte.
        start_line: First line, 1-based.
        end_line: Last line, inclusive.
        symbol: What the chunk defines first, else what it is inside of; may be empty.
        kind: Kind of ``symbol``; ``block`` for code outside of definitions, ``text`` otherwise.
        breadcrumb: ``pkg/file.py > class Foo > def bar``.
        symbols: Every definition that begins here.
        kinds: Their kinds, or ``(kind,)`` if none begins here.
        tokens: Tokens of ``text``, special tokens included.
    """

    text: str
    start_byte: int
    end_byte: int
    start_line: int
    end_line: int
    symbol: str
    kind: str
    breadcrumb: str
    symbols: tuple[str, ...]
    kinds: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class ChunkedFile:
    """The chunks of one file in order.

    Attributes:
        chunks: See :class:`Chunk`.
        language: As given or detected.
        method: How the file was cut.
        is_utf8: False if the texts hold replacement characters for invalid bytes.
        skeletons: What classes too big for one chunk look like from outside, of kind ``skeleton``.
            They repeat parts of ``chunks``; their offsets and lines are those of the whole class.
    """

    chunks: list[Chunk]
    language: str
    method: Method
    is_utf8: bool
    skeletons: list[Chunk] = field(default_factory=list)


class Chunker:
    """Cuts files into chunks of at most ``max_tokens`` tokens.

    Args:
        count_tokens: The model's own count, special tokens included.
        max_tokens: The limit.
        time_limit: Seconds for the parse of one file, after which it is cut by lines.
        worker: Parses languages of the extra ``all-languages``; by default one that the process
            shares.

    Raises:
        ConfigError: the limit leaves no room for text.
    """

    def __init__(
        self,
        count_tokens: CountTokens,
        max_tokens: int,
        time_limit: float = DEFAULT_TIME_LIMIT,
        worker: ParseWorker | None = None,
    ) -> None:
        self._worker = worker
        self._count = count_tokens
        self._special = count_tokens([""])[0]
        self._rows_add_up = bool(getattr(count_tokens, "rows_add_up", False))
        self._time_limit = time_limit
        self._row_tokens: dict[bytes, int] = {}
        self._of_rows: CountRows = getattr(count_tokens, "of_rows", self._by_row)
        self.max_tokens = max_tokens
        if max_tokens - self._special < _MIN_ROOM:
            raise ConfigError(
                f"max_tokens={max_tokens} leaves no room for text: "
                f"use {self._special + _MIN_ROOM} or more"
            )

    def chunk(self, data: bytes, path: str, language_name: str | None = None) -> ChunkedFile:
        """Cut one file.

        Args:
            data: The file's bytes.
            path: Shown in breadcrumbs; its suffix gives the language if none is named.
            language_name: A name of :func:`codeembed.languages.known_names`.
        """
        source = Source(data)
        name = language_name or detect(path, data[:4096])
        tokens = self._of_rows(source.data, source.starts)
        sizes = Sizes(tokens, self.max_tokens - self._special)
        outline, units, method = self._structure(source, name, sizes)
        parts = [
            part for run in segments(units, outline, sizes) for part in pack(units, *run, sizes)
        ]
        block = "block" if method is Method.TREE else "text"
        label = _Labeller(source, outline, path, block)
        chunks = [label.chunk(*piece) for piece in self._within_limit(source, parts, sizes)]
        views = list(self._skeletons(source, outline, sizes, path))
        return ChunkedFile(chunks, name, method, source.is_utf8, views)

    def _skeletons(
        self, source: Source, outline: Outline, sizes: Sizes, path: str
    ) -> Iterator[Chunk]:
        found = list(skeletons(source, outline, sizes))
        lines = [each.lines for each in found]
        fitted = fit_skeletons(lines, self._count, self.max_tokens, sizes.limit)
        for (around, _), (text, tokens) in zip(found, fitted, strict=True):
            if not text:
                continue
            definition = around[-1]
            start, end = source.span(*source.trim(definition.first, definition.end))
            yield Chunk(
                text=text,
                start_byte=start,
                end_byte=end,
                start_line=definition.first + 1,
                end_line=source.row_of(end - 1) + 1,
                symbol=definition.name,
                kind=SKELETON,
                breadcrumb=" > ".join([path, *map(_title, around)]),
                symbols=(definition.name,),
                kinds=(SKELETON,),
                tokens=tokens,
            )

    def _structure(self, source: Source, name: str, sizes: Sizes) -> tuple[Outline, Units, Method]:
        method = Method.LINES
        lang = language(name)
        if name == "notebook" and source.data.startswith(MARK):
            lang = language("python")
        try:
            if lang is not None:
                root = parse(source.data, lang, self._time_limit).root_node
                outline = code_outline(root, source, lang)
                return outline, tree_units(root, source, outline, sizes), Method.TREE
            if (lang := pack_language(name)) is not None:
                if has_pack():
                    return *self._apart(source, lang, sizes), Method.TREE
                method = Method.LINES_WITHOUT_GRAMMAR
        except ParseTimeoutError:
            method = Method.LINES_AFTER_TIMEOUT
        except ParserFailedError:
            method = Method.LINES_AFTER_FAILURE
        if name == "markdown":
            outline = markdown_outline(source)
            return outline, heading_units(source, outline), Method.HEADINGS
        return Outline(), row_units(source), method

    def _apart(self, source: Source, lang: Language, sizes: Sizes) -> tuple[Outline, Units]:
        """Outline and units from another process, where a grammar may hang or crash."""
        rows = range(source.row_count)
        tokens = [sizes.of(row, row + 1) for row in rows]
        worker = self._worker or shared_worker()
        outline, units = worker.run(
            lang.name, self._time_limit, source.data, lang, tokens, sizes.limit
        )
        return outline, units

    def _by_row(self, data: bytes, starts: npt.NDArray[np.int64]) -> list[int]:
        """Tokens of every row; rows such as ``else:`` are counted once a process."""
        known = self._row_tokens
        if len(known) > _CACHED_ROWS:
            known.clear()
        rows = [data[start:end] for start, end in pairwise(starts.tolist())]
        new = list({row for row in rows if row not in known})
        counts = self._count([row.decode("utf-8", "replace") for row in new])
        known.update((row, count - self._special) for row, count in zip(new, counts, strict=True))
        return [known[row] for row in rows]

    def _within_limit(
        self, source: Source, parts: Sequence[tuple[int, int]], sizes: Sizes
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Pieces that truly fit: ``(first row, row after the last, start byte, end byte, tokens)``.

        For most tokenizers a sum over rows is only an estimate of the tokens of the whole, and one
        row can be too long: such parts are halved between rows, then cut inside a row.
        """
        stack = self._counted(source, parts, sizes if self._rows_add_up else None)
        while stack:
            first, end, tokens = stack.pop()
            if tokens <= self.max_tokens:
                yield first, end, *source.span(first, end), tokens
            elif end - first == 1:
                for start, stop, tokens in self._within_row(source, *source.span(first, end)):
                    yield first, end, start, stop, tokens
            else:
                middle = (first + end) // 2
                stack += self._counted(source, [(first, middle), (middle, end)], None)

    def _counted(
        self, source: Source, parts: Sequence[tuple[int, int]], sizes: Sizes | None
    ) -> list[tuple[int, int, int]]:
        """Parts that are not blank, without blank rows around, last first, with their tokens."""
        trimmed = [source.trim(*part) for part in reversed(parts)]
        trimmed = [(first, end) for first, end in trimmed if first < end]
        if sizes is not None:
            return [(first, end, self._special + sizes.of(first, end)) for first, end in trimmed]
        counts = self._count([source.text(*source.span(*part)) for part in trimmed])
        return [(*part, count) for part, count in zip(trimmed, counts, strict=True)]

    def _within_row(self, source: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Cut one row into the longest pieces that fit, between words where there are any."""
        # Lone surrogates stand for invalid bytes: one character a byte, so that none is lost.
        rest = source.data[start:end].decode("utf-8", "surrogateescape")
        guess = 4 * self.max_tokens
        while rest:
            length, tokens = self._longest_fit(rest, guess)
            if length < len(rest) and (word_end := _last_break(rest, length)) != length:
                length = word_end
                tokens = self._count([_visible(rest[:length])])[0]
            piece = rest[:length]
            size = len(_bytes(piece))
            body = _bytes(piece).strip()
            if body:
                lead = size - len(_bytes(piece).lstrip())
                if len(body) != size:
                    tokens = self._count([body.decode("utf-8", "replace")])[0]
                yield start + lead, start + lead + len(body), tokens
            start += size
            rest = rest[length:]
            guess = max(length, 16)

    def _longest_fit(self, text: str, guess: int) -> tuple[int, int]:
        """Length and tokens of a prefix that fits and is about as long as possible, at least 1."""
        fits, tokens = 0, 0
        length = min(guess, len(text))
        too_long = len(text) + 1
        while length > fits:
            count = self._count([_visible(text[:length])])[0]
            if count <= self.max_tokens:
                fits, tokens = length, count
                if too_long <= len(text):
                    length = (fits + too_long) // 2
                else:
                    length = min(2 * length, len(text))
            else:
                too_long = length
                length = (fits + too_long) // 2
            if too_long - fits <= max(1, fits // 16):
                break
        # One character is the least there is, whatever it costs.
        return (fits, tokens) if fits else (1, self._count([_visible(text[:1])])[0])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _visible(text: str) -> str:
    return _bytes(text).decode("utf-8", "replace")


def _last_break(text: str, length: int) -> int:
    """A place to cut at or before ``length``: after white space, else after punctuation."""
    window = range(length - 1, max(0, length * 3 // 4), -1)
    for is_break in (str.isspace, _is_punctuation):
        for position in window:
            if is_break(text[position]):
                return position + 1
    return length


def _is_punctuation(char: str) -> bool:
    return char.isascii() and not char.isalnum() and char not in "_\\\"'"


class _Labeller:
    """Gives the chunks of one file, in order, their lines and names."""

    def __init__(self, source: Source, outline: Outline, path: str, block_kind: str) -> None:
        self._source = source
        self._definitions = outline.definitions
        self._firsts = [definition.first for definition in outline.definitions]
        self._open: list[Definition] = []
        self._next = 0
        self._path = path
        self._block_kind = block_kind

    def chunk(self, first: int, end: int, start: int, stop: int, tokens: int) -> Chunk:
        """The chunk of these rows and bytes."""
        begun_before = bisect_left(self._firsts, first)
        here = self._definitions[begun_before : bisect_left(self._firsts, end)]
        # The later pieces of a row that was cut define nothing.
        if here and self._source.data[self._source.row_starts[first] : start].strip():
            here = ()
        self._open += self._definitions[self._next : begun_before]
        self._next = max(self._next, begun_before)
        self._open = [each for each in self._open if each.end > first]
        around = [each for each in self._open if each.end >= end]
        outermost = _outermost(here)
        named = outermost[0] if outermost else around[-1] if around else None
        kind = named.kind if named else self._block_kind
        return Chunk(
            text=self._source.text(start, stop),
            start_byte=start,
            end_byte=stop,
            start_line=first + 1,
            end_line=end,
            symbol=named.name if named else "",
            kind=kind,
            breadcrumb=self._breadcrumb(around, outermost),
            symbols=tuple(dict.fromkeys([each.name for each in here])),
            kinds=tuple(dict.fromkeys([each.kind for each in here])) or (kind,),
            tokens=tokens,
        )

    def _breadcrumb(self, around: Sequence[Definition], here: Sequence[Definition]) -> str:
        names = [_title(each) for each in here[:_MAX_NAMES]]
        if len(here) > _MAX_NAMES:
            names.append("...")
        parts = [self._path, *(_title(each) for each in around)]
        return " > ".join([*parts, ", ".join(names)] if names else parts)


def _title(definition: Definition) -> str:
    return f"{definition.word} {definition.name}".rstrip()


def _outermost(definitions: Sequence[Definition]) -> list[Definition]:
    found: list[Definition] = []
    for definition in definitions:
        if not found or definition.first >= found[-1].end:
            found.append(definition)
    return found

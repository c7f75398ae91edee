"""What a class looks like from outside: its signature, its fields, and its methods without bodies.

A class too big for one chunk is cut into several, none of which says what the whole is. (Continue
collapses bodies the same way, and also keeps the children in full.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from codeembed.cut import Sizes
from codeembed.languages import CONTAINER_KINDS
from codeembed.outline import Definition, Outline
from codeembed.source import Source

__all__ = ["SKELETON", "Line", "Skeleton", "fit_skeletons", "skeletons"]

SKELETON = "skeleton"
"""Kind of a chunk that repeats parts of others."""

_MIN_MEMBERS = 2
# Deeper ones are no classes that somebody wrote, and cost a pass over their rows each.
_MAX_NESTING = 8
# A line of code is seldom shorter: lines beyond this share of the limit are not even counted.
_LEAST_TOKENS = 4
_ELIDED = "..."
_QUOTES = ('"""', "'''")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a skeleton.

    Attributes:
        text: With its indentation, without a line end.
        rank: 0 for the class itself, 1 for a member, 2 for a field; the highest go first.
    """

    text: str
    rank: int


class Skeleton(NamedTuple):
    """What a class looks like from outside.

    Attributes:
        around: The definitions that it is inside of, outer first, and itself.
        lines: Its lines, before any is left out.
    """

    around: list[Definition]
    lines: list[Line]


def skeletons(source: Source, outline: Outline, sizes: Sizes) -> Iterator[Skeleton]:
    """Those of every class that does not fit one chunk and has at least two members."""
    open_: list[Definition] = []
    definitions = outline.definitions
    for index, definition in enumerate(definitions):
        while open_ and open_[-1].end <= definition.first:
            open_.pop()
        open_.append(definition)
        is_big = not sizes.fits(definition.first, definition.end)
        if is_big and definition.kind in CONTAINER_KINDS and len(open_) <= _MAX_NESTING:
            members = _members(definitions, index)
            if len(members) >= _MIN_MEMBERS:
                around = [each for each in open_ if definition.end <= each.end]
                yield Skeleton(around, _lines(source, outline, definition, members))


def fit_skeletons(
    skeletons: Sequence[Sequence[Line]],
    count_tokens: Callable[[list[str]], list[int]],
    limit: int,
) -> list[tuple[str, int]]:
    """The texts of skeletons within ``limit`` tokens, and their tokens.

    Fields are left out from the end where there are too many lines, then members; an ellipsis
    stands for each run that is left out. Tokens are 0, and the text empty, where the signature
    alone does not fit.
    """
    orders = [_by_rank(lines)[: max(1, limit // _LEAST_TOKENS)] for lines in skeletons]
    ordered = zip(skeletons, orders, strict=True)
    texts = [lines[number].text for lines, order in ordered for number in order]
    special, *counts = count_tokens(["", *texts])
    each_count = iter(counts)
    # Lines are counted once: their sum is near enough to say where to begin.
    sums = [list(accumulate(next(each_count) - special for _ in order)) for order in orders]
    keeps = [max(1, bisect_right(each, limit - special)) for each in sums]
    fitted = [("", 0)] * len(skeletons)
    open_ = list(range(len(skeletons)))
    while open_:
        texts = [_text(skeletons[at], set(orders[at][: keeps[at]])) for at in open_]
        for at, text, tokens in zip(open_, texts, count_tokens(texts), strict=True):
            if tokens <= limit:
                fitted[at], keeps[at] = (text, tokens), 0
            else:
                keeps[at] -= max(1, keeps[at] * (tokens - limit) // (2 * tokens))
        open_ = [at for at in open_ if keeps[at]]
    return fitted


def _by_rank(lines: Sequence[Line]) -> list[int]:
    return sorted(range(len(lines)), key=lambda number: (lines[number].rank, number))


def _text(lines: Sequence[Line], kept: set[int]) -> str:
    parts: list[str] = []
    is_open = True
    for number, line in enumerate(lines):
        if number in kept:
            parts.append(line.text)
            is_open = True
        elif is_open:
            indent = line.text[: len(line.text) - len(line.text.lstrip())]
            parts.append(indent + _ELIDED)
            is_open = False
    return "\n".join(parts)


def _members(definitions: Sequence[Definition], index: int) -> list[Definition]:
    """What is defined directly inside the definition of that index."""
    outer = definitions[index]
    found: list[Definition] = []
    for place in range(index + 1, len(definitions)):
        each = definitions[place]
        if each.first >= outer.end:
            break
        if each.end <= outer.end and (not found or each.first >= found[-1].end):
            found.append(each)
    return found


def _lines(
    source: Source, outline: Outline, definition: Definition, members: Sequence[Definition]
) -> list[Line]:
    lines = [Line(_signature(source, outline, definition, ""), 0)]
    row = _head_rows(source, definition).stop
    for member in members:
        lines.extend(_fields(source, outline, row, member.first))
        lines.append(Line(_signature(source, outline, member, _ELIDED), 1))
        row = max(row, member.end)
    lines.extend(_fields(source, outline, row, definition.end))
    return lines


def _head_rows(source: Source, definition: Definition) -> range:
    """The rows of a signature, with an opening brace but not with a body below."""
    end = definition.head_end
    if _opens(source, definition):
        end += 1
    else:
        end = definition.start + len(source.data[definition.start : end].rstrip())
    return range(source.row_of(definition.start), source.row_of(max(end - 1, 0)) + 1)


def _opens(source: Source, definition: Definition) -> bool:
    return source.data[definition.head_end : definition.head_end + 1] == b"{"


def _signature(source: Source, outline: Outline, definition: Definition, body: str) -> str:
    """On one line, whatever it took in the file, without comments between its rows."""
    rows = _head_rows(source, definition)
    row_start = source.row_starts[rows.start]
    before = source.text(row_start, definition.start)
    indent = before[: len(before) - len(before.lstrip())]
    parts = [
        source.text(
            max(source.row_starts[row], definition.start),
            min(source.row_starts[row + 1], definition.head_end),
        )
        for row in rows
        if row == rows.start or row not in outline.attached
    ]
    text = " ".join(" ".join(parts).split())
    if not definition.has_body:
        return indent + text
    if _opens(source, definition):
        body = f"{{ {body} }}" if body else "{"
    return f"{indent}{text} {body}".rstrip()


def _fields(source: Source, outline: Outline, first: int, end: int) -> Iterator[Line]:
    """The rows between members, but for comments, and of a long string its first row only."""
    quote = ""
    for row in range(first, end):
        text = source.rows[row].decode("utf-8", "replace").rstrip()
        body = text.strip()
        if quote:
            quote = "" if body.endswith(quote) else quote
            continue
        if not body or row in outline.attached:
            continue
        yield Line(text, 2)
        for mark in _QUOTES:
            if body.lstrip("rRbBuUfF").startswith(mark) and body.count(mark) == 1:
                quote = mark

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
_ELIDED = "..."
_QUOTES = ('"""', "'''")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a skeleton.

    Attributes:
        text: With its indentation, without a line end.
        rank: 0 for the class itself, 1 for a member, 2 for a field; the highest go first.
        tokens: About how many, as the file's rows have them.
    """

    text: str
    rank: int
    tokens: int


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
                yield Skeleton(around, _lines(source, outline, sizes, definition, members))


def fit_skeletons(
    skeletons: Sequence[Sequence[Line]],
    count_tokens: Callable[[list[str]], list[int]],
    limit: int,
    room: int,
) -> list[tuple[str, int]]:
    """The texts of skeletons within ``limit`` tokens, and their tokens.

    ``room`` is what the special tokens leave of the limit.

    Fields are left out from the end where there are too many lines, then members; an ellipsis
    stands for each run that is left out. Tokens are 0, and the text empty, where the signature
    alone does not fit.
    """
    orders = [_by_rank(lines) for lines in skeletons]
    # The sum of lines is near enough to say where to begin.
    sums = [
        list(accumulate(lines[number].tokens for number in order))
        for lines, order in zip(skeletons, orders, strict=True)
    ]
    keeps = [max(1, bisect_right(each, room)) for each in sums]
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
    source: Source,
    outline: Outline,
    sizes: Sizes,
    definition: Definition,
    members: Sequence[Definition],
) -> list[Line]:
    lines = [_signature(source, outline, sizes, definition, "", 0)]
    row = _head_rows(source, definition).stop
    used = lines[0].tokens
    for member in members:
        lines.extend(_fields(source, outline, sizes, row, member.first))
        lines.append(_signature(source, outline, sizes, member, _ELIDED, 1))
        row = max(row, member.end)
        used += lines[-1].tokens
        if used > sizes.limit:
            # This member and all that follows are left out: they come before any field.
            return lines
    lines.extend(_fields(source, outline, sizes, row, definition.end))
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


def _signature(
    source: Source, outline: Outline, sizes: Sizes, definition: Definition, body: str, rank: int
) -> Line:
    """On one line, whatever it took in the file, without comments between its rows."""
    head = _head_rows(source, definition)
    starts = source.row_starts
    start, end = definition.start, definition.head_end
    before = source.text(starts[head.start], start)
    indent = before[: len(before) - len(before.lstrip())]
    tokens = sizes.of(head.start, head.stop)
    parts = [source.text(start, end)]
    if not outline.attached.isdisjoint(head[1:]):
        rows = [row for row in head if row == head.start or row not in outline.attached]
        tokens = sum(sizes.of(row, row + 1) for row in rows)
        parts = [source.text(max(starts[row], start), min(starts[row + 1], end)) for row in rows]
    text = " ".join(" ".join(parts).split())
    if definition.has_body:
        if _opens(source, definition):
            body = f"{{ {body} }}" if body else "{"
        text = f"{text} {body}".rstrip()
    return Line(indent + text, rank, tokens + len(body.replace(" ", "")))


def _fields(source: Source, outline: Outline, sizes: Sizes, first: int, end: int) -> Iterator[Line]:
    """The rows between members, but for comments, and of a long string its first row only."""
    quote = ""
    for row in range(first, end):
        text = source.text(source.row_starts[row], source.row_starts[row + 1]).rstrip()
        body = text.strip()
        if quote:
            quote = "" if body.endswith(quote) else quote
            continue
        if not body or row in outline.attached:
            continue
        yield Line(text, 2, sizes.of(row, row + 1))
        for mark in _QUOTES:
            if body.lstrip("rRbBuUfF").startswith(mark) and body.count(mark) == 1:
                quote = mark

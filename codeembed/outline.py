"""What a file defines: its classes and functions, or its headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from codeembed.definitions import Found, definitions_in, end_row
from codeembed.languages import CONTAINER_KINDS, Language
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = [
    "BODY",
    "Definition",
    "Outline",
    "code_outline",
    "markdown_outline",
    "outline_of",
]


_MAX_NAME = 120
BODY = re.compile(r"(?:\w+_)?(?:body|block)|declaration_list|statement_list")
"""Types of nodes that are a body where the grammar does not say so by a field."""
_BODY_WITHIN = 2
_BODY_AMONG = 12


class Definition(NamedTuple):
    """A named piece of a file.

    Attributes:
        name: The symbol, or the text of a heading.
        kind: ``class``, ``function``, ``method``, ``section``, ...
        word: What a breadcrumb calls it, e.g. ``def``.
        first: First row, with the comments and decorators directly above it.
        end: Row after the last one.
        start: Byte where it begins, without them.
        head_end: Byte where its signature ends.
        has_body: Whether something comes after the signature.
    """

    name: str
    kind: str
    word: str
    first: int
    end: int
    start: int = 0
    head_end: int = 0
    has_body: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """The definitions of a file by first row, outer before inner.

    Attributes:
        definitions: See :class:`Definition`.
        attached: Rows of comments and decorators, which stay with the row below them.
    """

    definitions: tuple[Definition, ...] = ()
    attached: frozenset[int] = frozenset()


def code_outline(root: tree_sitter.Node, source: Source, language: Language) -> Outline:
    """The outline of source code, given the root of its syntax tree."""
    found, attached = definitions_in(root, source, language)
    return outline_of(found, attached, source, language)


def outline_of(
    found: Sequence[Found], attached: set[int], source: Source, language: Language
) -> Outline:
    """Definitions in order, each with the comments directly above it; functions in classes are
    methods."""
    placed = [
        (
            _with_attached(each.node.start_point[0], attached, source),
            -end_row(each.body or each.node),
        )
        for each in found
    ]
    definitions: list[Definition] = []
    open_: list[Definition] = []
    for (first, negative_end), each in sorted(zip(placed, found, strict=True), key=itemgetter(0)):
        end = -negative_end
        # A definition that ends on the row where the next begins does not enclose it.
        while open_ and open_[-1].end < end:
            open_.pop()
        kind = each.kind
        if kind == "function" and open_ and open_[-1].kind in CONTAINER_KINDS:
            kind = "method"
        head_end, has_body = _head(each, source)
        definition = Definition(
            each.name,
            kind,
            language.word(kind),
            first,
            end,
            each.node.start_byte,
            head_end,
            has_body,
        )
        definitions.append(definition)
        open_.append(definition)
    return Outline(tuple(definitions), frozenset(attached))


def _head(found: Found, source: Source) -> tuple[int, bool]:
    """Where the signature ends, and whether a body follows."""
    node = found.node
    body = found.body or _body(node)
    if body is not None:
        return body.start_byte, True
    # It is a declaration, or of a form that is not known: its first row.
    return min(node.end_byte, source.row_starts[node.start_point[0] + 1]), False


def _body(node: tree_sitter.Node) -> tree_sitter.Node | None:
    """What a definition consists of beside its signature, at most two levels down."""
    level = [node]
    for _ in range(_BODY_WITHIN):
        for each in level:
            if (body := each.child_by_field_name("body")) is not None:
                return body
        level = [child for each in level for child in each.named_children[:_BODY_AMONG]]
        for each in level:
            if BODY.fullmatch(each.type):
                return each
    return None


def _with_attached(first: int, attached: set[int], source: Source) -> int:
    while first - 1 in attached and not source.is_blank[first - 1]:
        first -= 1
    return first


_HEADING = re.compile(rb" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\r?\n?$")
_FENCE = re.compile(rb" {0,3}(`{3,}|~{3,})")


def markdown_outline(source: Source) -> Outline:
    """The sections of a Markdown file: each runs to the next heading of its level or above."""
    headings: list[tuple[int, int, str]] = []
    fence = b""
    for row, line in enumerate(source.rows):
        if match := _FENCE.match(line):
            mark = match[1]
            if not fence:
                fence = mark
            elif mark[:1] == fence[:1] and len(mark) >= len(fence):
                fence = b""
        elif not fence and (match := _HEADING.match(line)):
            title = (match[2] or b"").decode("utf-8", "replace").strip()
            headings.append((row, len(match[1]), title[:_MAX_NAME]))
    definitions = []
    for index, (row, level, title) in enumerate(headings):
        # Each heading is passed over once for every level that is open above it: six at most.
        later = (headings[at] for at in range(index + 1, len(headings)))
        end = next((start for start, below, _ in later if below <= level), source.row_count)
        definitions.append(Definition(title, "section", "#" * level, row, end))
    return Outline(tuple(definitions))

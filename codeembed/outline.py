"""What a file defines: its classes and functions, or its headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from codeembed.languages import CONTAINER_KINDS, Language
from codeembed.parse import definition_query
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = [
    "BODY",
    "Definition",
    "Found",
    "Outline",
    "code_outline",
    "end_row",
    "markdown_outline",
    "outline_of",
    "own_rows",
    "symbol",
]


class Found(NamedTuple):
    """A definition as it stands in the tree.

    Attributes:
        node: Where it is.
        kind: A function may turn out to be a method.
        name: The symbol.
        body: Its body where that is no part of ``node``.
    """

    node: tree_sitter.Node
    kind: str
    name: str
    body: tree_sitter.Node | None = None


_MAX_NAME = 120
BODY = re.compile(r"(?:\w+_)?(?:body|block)|declaration_list|statement_list")
"""Types of nodes that are a body where the grammar does not say so by a field."""
_BODY_WITHIN = 2
_BODY_AMONG = 12
_NOT_KINDS = frozenset({"name", "owner", "comment", "attached"})


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


def code_outline(tree: tree_sitter.Tree, source: Source, language: Language) -> Outline:
    """The outline of parsed source code; code inside ERROR nodes still gives what it defines."""
    import tree_sitter

    query = definition_query(language, language.entry_for(source.data))
    matches = tree_sitter.QueryCursor(query).matches(tree.root_node)
    attached: set[int] = set()
    found: list[Found] = []
    for _, captures in matches:
        for capture, nodes in captures.items():
            if capture in ("comment", "attached"):
                for node in nodes:
                    attached.update(own_rows(node, source))
            elif capture not in _NOT_KINDS:
                node = nodes[0]
                name = symbol(source, captures["name"][0]) if "name" in captures else ""
                if "owner" in captures:
                    name = f"{symbol(source, captures['owner'][0])}.{name}".rstrip(".")
                found.append(Found(node, capture, name))
    return outline_of(found, attached, source, language)


def outline_of(
    found: list[Found], attached: set[int], source: Source, language: Language
) -> Outline:
    """Definitions in order, each with the comments directly above it; functions in classes are
    methods."""
    extended = [_definition(each, attached, source, language) for each in found]
    extended.sort(key=lambda each: (each.first, -each.end))
    return Outline(tuple(_name_methods(extended, language)), frozenset(attached))


def _definition(found: Found, attached: set[int], source: Source, language: Language) -> Definition:
    node = found.node
    body = found.body or _body(node)
    # Without a body it is a declaration, or a form that is not known: its first row.
    head_end = min(node.end_byte, source.row_starts[node.start_point[0] + 1])
    return Definition(
        found.name,
        found.kind,
        language.word(found.kind),
        _with_attached(node.start_point[0], attached, source),
        end_row(found.body or node),
        node.start_byte,
        head_end if body is None else body.start_byte,
        body is not None,
    )


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


def end_row(node: tree_sitter.Node) -> int:
    """The row after the node's last one; a node that ends with a line feed owns no further row."""
    row, column = node.end_point
    return row + 1 if column or row == node.start_point[0] else row


def own_rows(node: tree_sitter.Node, source: Source) -> range:
    """The node's rows if nothing but white space stands before it, else none."""
    row, column = node.start_point
    if column and source.data[node.start_byte - column : node.start_byte].strip():
        return range(0)
    return range(row, end_row(node))


def _with_attached(first: int, attached: set[int], source: Source) -> int:
    while first - 1 in attached and not source.is_blank[first - 1]:
        first -= 1
    return first


def symbol(source: Source, node: tree_sitter.Node) -> str:
    """The node's text as a name: on one line, without quotes, not too long."""
    text = source.text(node.start_byte, node.end_byte)
    if not text.isidentifier():
        text = " ".join(text.split()).strip("\"'`")
    return text[:_MAX_NAME]


def _name_methods(found: Sequence[Definition], language: Language) -> list[Definition]:
    definitions: list[Definition] = []
    open_: list[Definition] = []
    for definition in found:
        # A definition that ends on the row where the next begins does not enclose it.
        while open_ and not (
            open_[-1].first <= definition.first and definition.end <= open_[-1].end
        ):
            open_.pop()
        if definition.kind == "function" and open_ and open_[-1].kind in CONTAINER_KINDS:
            definition = definition._replace(kind="method", word=language.word("method"))
        definitions.append(definition)
        open_.append(definition)
    return definitions


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
        end = next((start for start, below, _ in later if below <= level), len(source.rows))
        definitions.append(Definition(title, "section", "#" * level, row, end))
    return Outline(tuple(definitions))

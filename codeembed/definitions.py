"""Definitions and comments as they stand in a syntax tree."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from codeembed.languages import Language, grammar, query_source
from codeembed.parse import definition_query
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["Found", "definitions_in", "end_row", "own_rows", "symbol"]

_MAX_NAME = 120
_ATTACHED = frozenset({"comment", "attached"})
_NOT_KINDS = _ATTACHED | {"name", "owner"}
# Of a query: a kind of node, the field of its name, and what it is captured as.
_PLAIN = re.compile(r"^\((\w+)(?: (\w+): \(_\) @name)?\) @(\w+)$", re.MULTILINE)


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


def definitions_in(
    root: tree_sitter.Node, source: Source, language: Language
) -> tuple[list[Found], set[int]]:
    """What source code defines, also inside ERROR nodes, and its rows of comments and decorators.

    A query over a whole tree takes a third as long as the parse. Where every definition has a
    keyword, only what the keywords stand in is looked at, and rows that look like comments are
    taken for such; one in a long string does no harm. Around errors anything may be anywhere.
    """
    import tree_sitter

    entry = language.entry_for(source.data)
    cursor = tree_sitter.QueryCursor(definition_query(language, entry))
    if root.has_error or not language.keywords:
        return _captured(cursor, [root], source)
    plain = _plain_patterns(language, entry)
    # What a keyword stands in, else what is directly inside of that, may be a definition.
    cursor.set_max_start_depth(1)
    others = []
    found: list[Found] = []
    attached = set(source.rows_that_begin_with(language.line_comment))
    for node in _at_keywords(root, source.data, language.keywords, plain):
        kind, field = plain.get(node.kind_id, ("", 0))
        if not kind:
            others.append(node)
        elif kind in _ATTACHED:
            attached.update(own_rows(node, source))
        elif (name := node.child_by_field_id(field)) is not None:
            found.append(Found(node, kind, symbol(source, name)))
    if others:
        more, more_attached = _captured(cursor, others, source)
        known = {each.node.id for each in found}
        found += [each for each in more if each.node.id not in known]
        attached |= more_attached
    return found, attached


def _captured(
    cursor: tree_sitter.QueryCursor, nodes: Iterable[tree_sitter.Node], source: Source
) -> tuple[list[Found], set[int]]:
    """What the query finds in each of the nodes."""
    found: dict[int, Found] = {}
    attached: set[int] = set()
    for node in nodes:
        for _, captures in cursor.matches(node):
            for capture, captured in captures.items():
                if capture in _ATTACHED:
                    for each in captured:
                        attached.update(own_rows(each, source))
                elif capture not in _NOT_KINDS:
                    name = symbol(source, captures["name"][0]) if "name" in captures else ""
                    if "owner" in captures:
                        name = f"{symbol(source, captures['owner'][0])}.{name}".rstrip(".")
                    found[captured[0].id] = Found(captured[0], capture, name)
    return list(found.values()), attached


def _at_keywords(
    root: tree_sitter.Node, data: bytes, keywords: Sequence[bytes], plain: Container[int]
) -> Iterator[tree_sitter.Node]:
    """What each keyword stands in, once; names and strings with the same letters are left out."""
    seen = set()
    for word in keywords:
        at = data.find(word)
        while at >= 0:
            node = root.descendant_for_byte_range(at, at + 1)
            if node is not None and not node.is_named:
                node = node.parent
            elif node is not None and node.kind_id not in plain:
                node = None
            if node is not None and node.id not in seen:
                seen.add(node.id)
                yield node
            at = data.find(word, at + 1)


@cache
def _plain_patterns(language: Language, entry: str) -> dict[int, tuple[str, int]]:
    """Kinds of nodes that the query captures whatever they hold: as what, and the name's field."""
    symbols = grammar(language.module, entry)
    plain = {}
    for kind, field, capture in _PLAIN.findall(query_source(language)):
        number = symbols.id_for_node_kind(kind, True)
        if number is not None:
            plain[number] = (capture, symbols.field_id_for_name(field) or 0 if field else 0)
    return plain


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


def symbol(source: Source, node: tree_sitter.Node) -> str:
    """The node's text as a name: on one line, without quotes, not too long."""
    text = source.text(node.start_byte, node.end_byte)
    if not text.isidentifier():
        text = " ".join(text.split()).strip("\"'`")
    return text[:_MAX_NAME]

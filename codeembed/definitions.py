"""Definitions and comments as they stand in a syntax tree."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
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
# Of a query: the kind of node after a bracket that opens, or nothing at one that closes.
_BRACKET = re.compile(r"\((\w+)|\)")


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
    keyword, only nodes that hold one are looked at, and rows that look like comments are taken for
    such; one in a long string does no harm.
    """
    import tree_sitter

    query = definition_query(language, language.entry_for(source.data))
    cursor = tree_sitter.QueryCursor(query)
    found: list[Found] = []
    attached: set[int] = set()
    nodes: Iterable[tree_sitter.Node] = (root,)
    if language.keywords:
        cursor.set_max_start_depth(0)
        attached.update(source.rows_that_begin_with(language.line_comment))
        nodes = _candidates(root, source.data, language)
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
                    found.append(Found(captured[0], capture, name))
    return found, attached


def _candidates(
    root: tree_sitter.Node, data: bytes, language: Language
) -> Iterator[tree_sitter.Node]:
    """Nodes of the kinds that patterns of the query begin with, outer before inner."""
    kinds = _kinds(language, language.entry_for(data))
    keywords = [*_places(data, language.keywords), len(data) + 1]
    stack = [root]
    while stack:
        node = stack.pop()
        start = node.start_byte
        if node.kind_id in kinds:
            yield node
            # The first thing in it may be its own keyword.
            start += 1
        at = bisect_left(keywords, start)
        if keywords[at] >= node.end_byte:
            continue
        inner = []
        for child in node.children:
            end = child.end_byte
            if keywords[at] < end:
                inner.append(child)
                at = bisect_left(keywords, end, at)
            elif child.kind_id in kinds:
                inner.append(child)
        stack.extend(reversed(inner))


def _places(data: bytes, words: Sequence[bytes]) -> list[int]:
    """Where any of the words is, in order."""
    found = []
    for word in words:
        at = data.find(word)
        while at >= 0:
            found.append(at)
            at = data.find(word, at + 1)
    return sorted(found)


@cache
def _kinds(language: Language, entry: str) -> frozenset[int]:
    """Kinds of nodes that patterns of the query begin with."""
    symbols = grammar(language.module, entry)
    depth = 0
    found = set()
    for name in _BRACKET.findall(query_source(language)):
        if name and not depth and (kind := symbols.id_for_node_kind(name, True)) is not None:
            found.add(kind)
        depth += 1 if name else -1
    return frozenset(found)


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

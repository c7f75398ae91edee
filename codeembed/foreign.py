"""The structure of a file in a language that has a grammar but no query of its own.

Grammars name their nodes alike (``class_definition``, ``function_item``), and that gives an outline
for most of them. Where it gives none (Lisps, Elixir) files are still cut along their tree.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from codeembed.cut import Sizes, Units, tree_units
from codeembed.definitions import Found, own_rows, symbol
from codeembed.languages import Language
from codeembed.outline import BODY, Outline, outline_of
from codeembed.parse import parse
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["foreign_structure"]

_DEFINITION = re.compile(
    r"(?:\w+_)?(class|interface|struct|trait|enum|module|contract|object|protocol|function|func"
    r"|fun|fn|proc|procedure|subroutine|method|constructor|entity)"
    r"_(?:definition|declaration|decl|item|binding|implementation|interface|specification"
    r"|signature|statement|declaration_statement)"
)
# `function` alone is a type in some grammars, so that it must say its name.
_BARE = re.compile(r"(function|subroutine|module)")
_KINDS = {"contract": "class", "method": "method", "constructor": "method", "entity": "module"}
_FUNCTIONS = frozenset({"function", "func", "fun", "fn", "proc", "procedure", "subroutine"})
_NAME = re.compile(r"(?:\w+_)?(?:identifier|name|id|var)")
_NAME_WITHIN = 24


def foreign_structure(
    data: bytes, language: Language, tokens: list[int], limit: int, time_limit: float
) -> tuple[Outline, Units]:
    """Parse a file and say what it defines and where it may be cut; the result can be pickled.

    Args:
        data: The file's bytes without a byte-order mark.
        language: Whose grammar to use.
        tokens: Tokens of every row.
        limit: Tokens that a chunk may have.
        time_limit: Seconds for the parse, as far as the grammar lets itself be interrupted.

    Raises:
        ParseTimeoutError: the limit was reached.
    """
    source = Source(data)
    root = parse(data, language, time_limit).root_node
    outline = _outline(root, source, language)
    return outline, tree_units(root, source, outline, Sizes(tokens, limit))


def _outline(root: tree_sitter.Node, source: Source, language: Language) -> Outline:
    attached: set[int] = set()
    found: list[Found] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if "comment" in node.type:
            attached.update(own_rows(node, source))
        elif node.is_named and (each := _definition(node, source)) is not None:
            found.append(each)
        stack.extend(reversed(node.children))
    return outline_of(found, attached, source, language)


def _definition(node: tree_sitter.Node, source: Source) -> Found | None:
    name = node.child_by_field_name("name")
    match = _DEFINITION.fullmatch(node.type)
    if match is not None:
        name = name or _first_name(node)
    else:
        match = _BARE.fullmatch(node.type)
    if match is None or name is None or not (text := symbol(source, name)):
        return None
    word = match[1]
    kind = "function" if word in _FUNCTIONS else _KINDS.get(word, word)
    return Found(node, kind, text, _body_beside(node) if "_signature" in node.type else None)


def _body_beside(node: tree_sitter.Node) -> tree_sitter.Node | None:
    """The body after a signature, which may stand inside a signature of its own (Dart)."""
    parent = node.parent
    if parent is not None and "_signature" in parent.type:
        node = parent
    body = node.next_named_sibling
    return body if body is not None and BODY.fullmatch(body.type) else None


def _first_name(node: tree_sitter.Node) -> tree_sitter.Node | None:
    """The nearest identifier on the node's first row, among the first few nodes level by level."""
    queue = deque(node.named_children[:_NAME_WITHIN])
    for _ in range(_NAME_WITHIN):
        if not queue:
            break
        inner = queue.popleft()
        if inner.start_point[0] > node.start_point[0]:
            continue
        if _NAME.fullmatch(inner.type):
            return inner
        if (name := inner.child_by_field_name("name")) is not None:
            return name
        queue.extend(inner.named_children[:_NAME_WITHIN])
    return None

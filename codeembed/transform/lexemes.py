"""The tokens of source code: leaves of the tree, with every literal string as one."""

from __future__ import annotations

from dataclasses import dataclass

from codeembed.transform.tree import Code, Node

__all__ = ["Lexeme", "is_atom", "lexemes", "same_tokens"]

_ATOM_WORDS = ("string", "heredoc", "regex", "char_literal", "character_literal", "nowdoc")
_ATOMS = frozenset(
    {"symbol_array", "subshell", "delimited_symbol", "jsx_text", "preproc_arg", "system_lib_string"}
)


@dataclass(frozen=True, slots=True)
class Lexeme:
    """One token.

    Attributes:
        type: Node type, which for punctuation and keywords is its text.
        start: First byte.
        end: Byte after the last one.
        node: The node it comes from.
    """

    type: str
    start: int
    end: int
    node: Node


def is_atom(code: Code, node: Node) -> bool:
    """Whether a node is one token: white space in it is not layout."""
    if not node.children:
        return True
    if not node.named:
        return False
    return (
        node.type in _ATOMS
        or node.type in code.syntax.comments
        or any(word in node.type for word in _ATOM_WORDS)
    )


def lexemes(code: Code, *, comments: bool = False) -> list[Lexeme]:
    """The tokens of the text in order; empty ones and line ends are none."""
    found: list[Lexeme] = []
    index = 0
    while index < len(code.nodes):
        node = code.nodes[index]
        if not is_atom(code, node):
            index += 1
            continue
        index = node.last
        is_comment = node.type in code.syntax.comments
        if (is_comment and not comments) or not code.inside(node):
            continue
        if code.bytes_of(node).strip():
            found.append(Lexeme(node.type, node.start, node.end, node))
    return found


def same_tokens(first: Code, second: Code) -> bool:
    """Whether two texts differ in layout and comments alone: same tokens, same named nodes."""
    return _shape(first) == _shape(second)


def _shape(code: Code) -> list[tuple[str, bytes]]:
    comments = code.syntax.comments
    tokens = {each.node.index for each in lexemes(code)}
    shape: list[tuple[str, bytes]] = []
    index = 0
    while index < len(code.nodes):
        node = code.nodes[index]
        if node.index in tokens:
            shape.append((node.type, code.bytes_of(node).strip()))
            index = node.last
            continue
        if node.type in comments:  # some have parts of their own, such as Rust's doc comments
            index = node.last
            continue
        if node.named and node.children:
            shape.append((node.type, b""))
        index += 1
    return shape

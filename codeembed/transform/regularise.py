"""Edits that lose information on purpose, for regularisation. They do NOT keep the meaning, and
mostly not the syntax; they are never in the list of preserving operations.

Sources: CoCoSoDa (Shi et al., 2023) masks tokens and replaces them by their types; ContraCode (Jain
et al., 2021) drops lines; CodeSage (Zhang et al., 2024) drops the signature and the returns; SCodeR
(Li et al., 2022) pairs a subtree with its context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from codeembed.transform.edit import Edit, Replacement
from codeembed.transform.lexemes import Lexeme, lexemes
from codeembed.transform.scopes import outer_functions
from codeembed.transform.tree import Code, Node

__all__ = [
    "SubtreeContext",
    "drop_lines",
    "drop_signature_and_returns",
    "mask_identifiers",
    "replace_by_type",
    "subtree_and_context",
]

_COMPLETE = frozenset(
    {"for_statement", "while_statement", "if_statement", "try_statement", "with_statement"}
    | {"do_statement", "switch_statement", "for_in_statement", "enhanced_for_statement", "if"}
    | {"foreach_statement", "for_expression", "while_expression", "if_expression", "while", "case"}
    | {"for_range_loop", "match_expression", "expression_switch_statement", "begin", "for"}
)


@dataclass(frozen=True, slots=True)
class SubtreeContext:
    """A functionally complete piece and the rest of its function, as text."""

    subtree: bytes
    context: bytes


def mask_identifiers(code: Code, rate: float, seed: int, mask: bytes = b"<mask>") -> Edit:
    """Replace a share of the identifiers by a mask, each occurrence on its own."""
    return _replace(code, rate, seed, lambda _: mask)


def replace_by_type(code: Code, rate: float, seed: int) -> Edit:
    """Replace a share of the identifiers by the name of their node type."""
    return _replace(code, rate, seed, lambda each: each.type.encode())


def _replace(code: Code, rate: float, seed: int, text: Callable[[Lexeme], bytes]) -> Edit:
    random = Random(f"{seed}/mask")
    names = [each for each in lexemes(code) if "identifier" in each.type or each.type == "name"]
    return Edit.of(
        Replacement(each.start - code.offset, code.source[each.start : each.end], text(each))
        for each in names
        if random.random() < rate
    )


def drop_lines(code: Code, rate: float, seed: int) -> Edit:
    """Drop a share of the lines after the first."""
    random = Random(f"{seed}/lines")
    start = 0
    found = []
    for number, line in enumerate(code.text.splitlines(keepends=True)):
        if number and line.strip() and random.random() < rate:
            found.append((start, line))
        start += len(line)
    return Edit.of(Replacement(at, line, b"") for at, line in found)


def drop_signature_and_returns(code: Code) -> Edit:
    """Drop what comes before each outermost body, and every return in it."""
    found: list[Replacement] = []
    for function in outer_functions(code):
        body = function.child("body")
        if body is None:
            continue
        parts = [(function.start, body.start)]
        parts += [(n.start, n.end) for n in code.find(code.syntax.returns, body)]
        end = 0
        for start, stop in parts:
            if start >= end:
                found.append(Replacement(start - code.offset, code.source[start:stop], b""))
                end = stop
    return Edit.of(found)


def subtree_and_context(
    code: Code, seed: int, smallest: float = 0.1, largest: float = 0.7
) -> SubtreeContext | None:
    """A random complete statement and the text without it.

    Args:
        code: A function.
        seed: Chooses the subtree.
        smallest: Least share of the bytes in the subtree.
        largest: Greatest share.

    Returns:
        None when no loop, branch or the like has such a size.
    """
    size = max(len(code.text), 1)
    fitting: list[Node] = [
        node
        for node in code.find(_COMPLETE)
        if code.inside(node) and smallest <= (node.end - node.start) / size <= largest
    ]
    if not fitting:
        return None
    node = Random(f"{seed}/subtree").choice(fitting)
    start, end = node.start - code.offset, node.end - code.offset
    return SubtreeContext(code.text[start:end], code.text[:start] + code.text[end:])

"""Labels of tokens, aligned to the subwords of any tokenizer by byte spans."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from codeembed.transform.lexemes import lexemes
from codeembed.transform.scopes import outer_functions, variables
from codeembed.transform.tree import Code

__all__ = ["IGNORED", "TokenLabel", "align", "byte_spans", "token_labels"]

IGNORED = -1
"""Label of a subword that lies in no token: white space and special tokens."""


@dataclass(frozen=True, slots=True)
class TokenLabel:
    """What is known of one token.

    Attributes:
        start: First byte in the text.
        end: Byte after the last one.
        type: Node type, which is the lexical type (``identifier``, ``string``, ``+``, ...).
        parent: Type of the parent node (CONCORD's local tree target).
        is_identifier: Whether it is a name.
        is_variable: Whether it is a local or a parameter.
    """

    start: int
    end: int
    type: str
    parent: str
    is_identifier: bool
    is_variable: bool


def token_labels(code: Code) -> list[TokenLabel]:
    """Labels of every token, comments included, in order and without overlap."""
    bound = {
        leaf.index
        for function in outer_functions(code)
        for variable in variables(code, function)
        for node in variable.occurrences
        for leaf in code.below(node)
    }
    names = code.syntax.variables | {"name", "constant", "simple_identifier"}
    return [
        TokenLabel(
            each.start - code.offset,
            each.end - code.offset,
            each.type,
            each.node.parent.type if each.node.parent else "",
            "identifier" in each.type or each.type in names,
            each.node.index in bound,
        )
        for each in lexemes(code, comments=True)
    ]


def byte_spans(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A tokenizer's character offsets as byte offsets."""
    starts = [0]
    for character in text:
        starts.append(starts[-1] + len(character.encode("utf-8", "surrogatepass")))
    return [(starts[start], starts[end]) for start, end in offsets]


def align(labels: Sequence[TokenLabel], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each subword the index of the token that it lies in.

    Args:
        labels: In order, as :func:`token_labels` gives them.
        spans: Byte spans of the subwords; empty ones are special tokens.

    Returns:
        One index a subword; :data:`IGNORED` where it overlaps no token. A subword that touches
        several belongs to the one in which its first byte of a token lies.
    """
    starts = [each.start for each in labels]
    found: list[int] = []
    for start, end in spans:
        place = bisect_right(starts, start) - 1
        if place < 0 or labels[place].end <= start:
            place += 1
        inside = place < len(labels) and start < end and labels[place].start < end
        found.append(place if inside else IGNORED)
    return found

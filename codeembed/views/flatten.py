"""The tree as a sequence of tokens, which gives the source's tokens back (UniXcoder).

Source: UniXcoder (Guo et al., 2022), section 3.2: a leaf is its text; any other node is
``<type,left>``, its children, ``<type,right>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeembed.transform.lexemes import is_atom
from codeembed.transform.tree import Code, Node
from mmembed.errors import InputError

__all__ = ["Piece", "flatten", "linearise", "linearised_parents", "source_tokens", "unflatten"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One element of a flattened tree.

    Attributes:
        text: The token, or the marker of a node.
        kind: Node type.
        side: ``left`` or ``right`` for the markers of a node, ``""`` for a token.
        start: First byte in the text; for markers, the node's.
        end: Byte after the last one.
    """

    text: str
    kind: str
    side: str
    start: int
    end: int


def flatten(code: Code, *, nonterminals: bool = True) -> list[Piece]:
    """Flatten the tree of a source.

    Args:
        code: The source; comments are tokens too.
        nonterminals: Keep the markers. UniXcoder drops them for about half of the inputs, so that
            plain code works as well.
    """
    pieces: list[Piece] = []
    todo: list[tuple[Node, str]] = [(code.root, "")]
    while todo:
        node, side = todo.pop()
        start, end = node.start - code.offset, node.end - code.offset
        if side == "right":
            pieces.append(Piece(f"<{node.type},right>", node.type, side, start, end))
        elif is_atom(code, node):
            if code.inside(node) and code.bytes_of(node).strip():
                pieces.append(Piece(code.of(node).strip(), node.type, "", start, end))
        else:
            if nonterminals and code.inside(node):
                pieces.append(Piece(f"<{node.type},left>", node.type, "left", start, end))
                todo.append((node, "right"))
            todo.extend((child, "") for child in reversed(node.children))
    return pieces


def unflatten(pieces: Sequence[Piece]) -> list[str]:
    """The source's tokens, after checking that the markers nest.

    Raises:
        InputError: a marker closes a node that is not the open one.
    """
    open_nodes: list[str] = []
    tokens: list[str] = []
    for place, piece in enumerate(pieces):
        if piece.side == "left":
            open_nodes.append(piece.kind)
        elif piece.side == "right":
            if not open_nodes or open_nodes.pop() != piece.kind:
                raise InputError(f"piece {place}", f"{piece.text} closes no open node")
        else:
            tokens.append(piece.text)
    if open_nodes:
        raise InputError("flattened tree", f"<{open_nodes[-1]},left> is never closed")
    return tokens


def source_tokens(code: Code) -> list[str]:
    """The tokens of a source with its comments, in order."""
    return [piece.text for piece in flatten(code, nonterminals=False)]


def linearise(code: Code) -> list[str]:
    """Depth-first sequence of node types with tokens at the leaves, without closing markers.

    Source: the AST modality of SynCoBERT (Wang et al., 2021) and Code-MVP (Wang et al., 2022).
    """
    return [
        piece.kind if piece.side == "left" else piece.text
        for piece in flatten(code)
        if piece.side != "right"
    ]


def linearised_parents(code: Code) -> list[int]:
    """For each element of :func:`linearise` the place of its parent's; -1 for the root's."""
    parents: list[int] = []
    above = [-1]
    for piece in flatten(code):
        if piece.side == "right":
            above.pop()
            continue
        parents.append(above[-1])
        if piece.side == "left":
            above.append(len(parents) - 1)
    return parents

"""Trees of vectors: a document, its sections, their paragraphs; and searching from the top down."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mmembed.documents.late_chunking import Span, late_chunks
from mmembed.errors import InputError

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["Node", "document_tree", "search_trees", "sections_of"]

Vector: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]*\n")


@dataclass(slots=True)
class Node:
    """A part of a document.

    Attributes:
        span: its characters in the document.
        title: its heading, or the first words of a paragraph.
        children: its parts; a paragraph has none.
        section: whether it is a document or a section, and no paragraph.
        vector: ``(d,)`` float32 unit vector; of an inner node the mean of its paragraphs', each
            with the weight of its length, so that it stands for all of its text.
    """

    span: Span
    title: str
    children: list[Node] = field(default_factory=list)
    section: bool = False
    vector: Vector = field(default_factory=lambda: np.empty(0, dtype=np.float32), repr=False)

    def leaves(self) -> Iterator[Node]:
        """The paragraphs, in their order."""
        if not self.section:
            yield self
        for child in self.children:
            yield from child.leaves()


def document_tree(model: Embedder, text: str, title: str = "") -> Node:
    """The tree of a Markdown or plain text, with the vector of each part.

    Paragraphs are embedded by late chunking, so each knows its section.

    Args:
        model: as :func:`mmembed.documents.late_chunks`.
        text: headings of Markdown make sections; blank lines part paragraphs.
        title: of the document.

    Raises:
        InputError: the text has no paragraph.
        ConfigError: as :func:`mmembed.documents.late_chunks`.
    """
    root = sections_of(text, title)
    leaves = list(root.leaves())
    if not leaves:
        raise InputError(title or "document", "has no paragraph")
    for leaf, vector in zip(
        leaves, late_chunks(model, text, [n.span for n in leaves]), strict=True
    ):
        leaf.vector = vector
    _fill(root)
    return root


def search_trees(
    query: Vector, trees: Sequence[Node], *, k: int = 10, beam: int = 4
) -> list[tuple[float, Node]]:
    """The paragraphs nearest to a query, by going down the branches that look best.

    Args:
        query: ``(d,)`` unit vector.
        trees: documents.
        k: how many paragraphs at most.
        beam: how many branches are followed at each level; as many as there are nodes, and the
            search is exhaustive.

    Returns:
        Cosines and paragraphs, the best first.
    """
    found: list[tuple[float, Node]] = []
    level = list(trees)
    while level:
        scored = sorted(((float(node.vector @ query), node) for node in level), key=_falling)
        found += [one for one in scored if not one[1].children]
        inner = [node for _, node in scored if node.children][:beam]
        level = [child for node in inner for child in node.children]
    return sorted(found, key=_falling)[:k]


def sections_of(text: str, title: str = "") -> Node:
    """The tree of a text without vectors: sections by headings, in them paragraphs."""
    root = Node((0, len(text)), title, section=True)
    path: list[tuple[int, Node]] = [(0, root)]
    at = 0
    for match in [*_HEADING.finditer(text), None]:
        stop = len(text) if match is None else match.start()
        path[-1][1].children += _paragraphs(text, at, stop)
        if match is None:
            break
        depth = len(match.group(1))
        while path[-1][0] >= depth:
            path.pop()
        section = Node((match.start(), len(text)), match.group(2), section=True)
        path[-1][1].children.append(section)
        path.append((depth, section))
        at = match.end()
    _prune(root)
    return root


def _paragraphs(text: str, start: int, stop: int) -> list[Node]:
    found = []
    edges = [start, *(start + m.end() for m in _BLANK.finditer(text[start:stop])), stop]
    for a, b in pairwise(edges):
        piece = text[a:b]
        if words := piece.strip():
            first = a + piece.index(words[0])
            found.append(Node((first, first + len(words)), " ".join(words.split()[:8])))
    return found


def _prune(node: Node) -> None:
    """Headings without text go; a section ends where its last part does."""
    for child in node.children:
        _prune(child)
    node.children = [child for child in node.children if child.children or not child.section]
    if node.children:
        node.span = (node.span[0], node.children[-1].span[1])


def _fill(node: Node) -> None:
    for child in node.children:
        _fill(child)
    if node.children:
        leaves = list(node.leaves())
        weights = np.array([leaf.span[1] - leaf.span[0] for leaf in leaves], dtype=np.float32)
        mean = (np.stack([leaf.vector for leaf in leaves]) * weights[:, None]).sum(axis=0)
        node.vector = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def _falling(one: tuple[float, Node]) -> float:
    return -one[0]

"""A parsed piece of source code as plain nodes, walked without recursion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from codeembed.languages import Language, normalise_name
from codeembed.languages import language as find_language
from codeembed.parse import parse
from codeembed.transform.syntax import Syntax
from codeembed.transform.syntaxes import SYNTAXES
from mmembed.errors import InputError

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["Code", "Node"]


@dataclass(slots=True, eq=False)
class Node:
    """One node of a syntax tree.

    Attributes:
        type: The grammar's name of the node; a token such as ``+`` is its own type.
        field: The role that the parent gives it, or ``""``.
        start: First byte in :attr:`Code.source`.
        end: Byte after the last one.
        named: False for punctuation and keywords.
        index: Place in the pre-order of the tree.
        parent: None for the root.
        children: In the order of the source, tokens included.
        last: Index after the last descendant.
    """

    type: str
    field: str
    start: int
    end: int
    named: bool
    index: int
    parent: Node | None
    children: list[Node] = dataclasses.field(default_factory=list)
    last: int = 0

    def child(self, name: str) -> Node | None:
        """The first child with that field."""
        return next((each for each in self.children if each.field == name), None)

    def all(self, name: str) -> list[Node]:
        """Every child with that field."""
        return [each for each in self.children if each.field == name]

    @property
    def named_children(self) -> list[Node]:
        """Children that are not punctuation or keywords."""
        return [each for each in self.children if each.named]

    def ancestors(self) -> Iterator[Node]:
        """Parents, nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def within(self, other: Node) -> bool:
        """Whether this node is ``other`` or below it."""
        return other.index <= self.index < other.last

    @property
    def role(self) -> str:
        """``parent.field``, or the parent's type alone where there is no field."""
        above = self.parent.type if self.parent else ""
        return f"{above}.{self.field}" if self.field else above


class Code:
    """Source bytes, their language and their tree.

    A fragment that only parses inside something (a method outside its class) is wrapped for the
    parser: ``prefix + text + suffix`` is :attr:`source`, and offsets of nodes count from there.

    Attributes:
        text: The bytes as given.
        source: What was parsed.
        offset: Where ``text`` begins in ``source``.
        has_error: Whether the tree holds an ERROR or a MISSING node.
    """

    def __init__(self, text: bytes, language: Language, prefix: bytes, suffix: bytes) -> None:
        self.text = text
        self.language = language
        self.syntax: Syntax = SYNTAXES[language.name]
        self.prefix, self.suffix = prefix, suffix
        self.source = prefix + text + suffix
        self.offset = len(prefix)
        self._tree = parse(self.source, language)
        self.has_error = self._tree.root_node.has_error

    @classmethod
    def read(cls, text: bytes, language: str) -> Code:
        """Parse a file or a fragment.

        Args:
            text: The bytes; kept as they are, line ends included.
            language: A name known to :mod:`codeembed.languages`.

        Raises:
            InputError: the language has no transformations, or the text does not parse cleanly.
            ParseTimeoutError: the parser took too long.
        """
        found = find_language(normalise_name(language))
        if found is None or found.name not in SYNTAXES:
            known = ", ".join(SYNTAXES)
            raise InputError(str(language), "has no transformations", f"choose one of {known}")
        for prefix, suffix in ((b"", b""), *SYNTAXES[found.name].wrappers):
            code = cls(text, found, prefix, suffix)
            if not code.has_error:
                return code
        raise InputError(
            f"{found.name} source", "does not parse", "check its syntax and its language"
        )

    def again(self, text: bytes) -> Code:
        """Other text in the same wrapping; it may have errors."""
        return Code(text, self.language, self.prefix, self.suffix)

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node in pre-order; made when first asked for."""
        return _flatten(self._tree)

    @property
    def root(self) -> Node:
        """The whole source."""
        return self.nodes[0]

    def of(self, node: Node) -> str:
        """The text of a node."""
        return self.source[node.start : node.end].decode("utf-8", "replace")

    def bytes_of(self, node: Node) -> bytes:
        """The bytes of a node."""
        return self.source[node.start : node.end]

    def below(self, node: Node) -> list[Node]:
        """The node and its descendants, in pre-order."""
        return self.nodes[node.index : node.last]

    def find(self, types: frozenset[str], under: Node | None = None) -> list[Node]:
        """Named nodes of these types, in pre-order."""
        return [n for n in self.below(under or self.root) if n.named and n.type in types]

    def inside(self, node: Node) -> bool:
        """Whether the node lies in the text, not in the wrapping."""
        return self.offset <= node.start and node.end <= self.offset + len(self.text)

    @cached_property
    def words(self) -> frozenset[str]:
        """The text of every leaf, to choose a name that nothing else has."""
        return frozenset(self.of(n) for n in self.nodes if not n.children)

    def line_start(self, offset: int) -> int:
        """First byte of the line that holds ``offset``."""
        return self.source.rfind(b"\n", 0, offset) + 1

    def line_end(self, offset: int) -> int:
        """Offset of the line feed that ends the line, or the end of the source."""
        end = self.source.find(b"\n", offset)
        return len(self.source) if end < 0 else end

    def indent(self, node: Node) -> bytes:
        """White space that the node's line begins with."""
        line = self.source[self.line_start(node.start) : node.start]
        return line[: len(line) - len(line.lstrip(b" \t"))]

    def begins_line(self, node: Node) -> bool:
        """Whether only white space comes before the node on its line."""
        return not self.source[self.line_start(node.start) : node.start].strip()

    @cached_property
    def newline(self) -> bytes:
        """The line end that this text uses."""
        return b"\r\n" if b"\r\n" in self.text else b"\n"


def _flatten(tree: tree_sitter.Tree) -> list[Node]:
    cursor = tree.walk()
    nodes: list[Node] = []
    parent: Node | None = None
    while True:
        raw = cursor.node
        assert raw is not None  # a cursor always stands on a node
        node = Node(
            raw.type,
            cursor.field_name or "",
            raw.start_byte,
            raw.end_byte,
            raw.is_named,
            len(nodes),
            parent,
        )
        nodes.append(node)
        if parent is not None:
            parent.children.append(node)
        if cursor.goto_first_child():
            parent = node
            continue
        node.last = len(nodes)
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent() or parent is None:
                return nodes
            parent.last = len(nodes)
            parent = parent.parent

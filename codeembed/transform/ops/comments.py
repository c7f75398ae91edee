"""Removing and inserting comments and docstrings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.lexemes import is_atom
from codeembed.transform.names import WORDS
from codeembed.transform.op import RefusedError, Site
from codeembed.transform.tree import Code, Node

__all__ = [
    "InsertComment",
    "InsertDocstring",
    "RemoveComment",
    "RemoveDocstring",
    "own_line",
    "statements",
]

_READS_DOCSTRINGS = (b"__doc__", b"doctest", b"docopt")


def statements(code: Code) -> Iterator[Node]:
    """Statements of blocks of functions, not of classes or of whole files."""
    syntax = code.syntax
    for body in code.find(syntax.bodies):
        owner = next(
            (a for a in body.ancestors() if a.type in syntax.functions | syntax.classes), None
        )
        if owner is None or owner.type in syntax.classes:
            continue
        if body.parent is not None and "switch" in body.parent.type:
            continue
        for child in body.named_children:
            if child.type not in syntax.comments | syntax.bodies and code.inside(child):
                yield child


def own_line(code: Code, node: Node) -> int:
    """Where the line of a statement begins, before which a line of its own may stand.

    Raises:
        RefusedError: the statement shares its line, continues one, or stands inside a string.
    """
    start = code.line_start(node.start)
    if not code.begins_line(node) or start < code.offset:
        raise RefusedError("statement-shares-its-line")
    if code.source[:start].rstrip(b"\r\n").endswith(b"\\"):
        raise RefusedError("line-is-continued")
    _refuse_string(code, node)
    return start


def _refuse_string(code: Code, node: Node) -> None:
    if any(is_atom(code, above) for above in node.ancestors()):
        raise RefusedError("inside-a-string")


class RemoveComment:
    """Drop a comment, with its line if nothing else is there."""

    name = "remove-comment"

    def scout(self, code: Code) -> Iterable[Site]:
        """Every comment."""
        return [Site(n) for n in code.find(code.syntax.comments) if code.inside(n)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Drop it, unless a tool reads it."""
        node = site.node
        text = code.bytes_of(node)
        if text.startswith(code.syntax.pragma) or b'import "C"' in code.source:
            raise RefusedError("read-by-a-tool")
        _refuse_string(code, node)
        start, end = node.start, node.end
        # Some grammars count the line end as part of the comment; the line must still end.
        end -= len(text) - len(text.rstrip(b"\r\n"))
        line_ends = not code.source[end : code.line_end(end)].strip()
        if code.begins_line(node) and line_ends:
            start, end = code.line_start(start), min(code.line_end(end) + 1, len(code.source))
            if node.end == len(code.source):
                end = node.end
            new = b""
        elif line_ends:
            before = code.source[:start]
            start = len(before.rstrip(b" \t"))
            new = b""
        else:
            new = code.newline if b"\n" in text else b" "
        start = max(start, code.offset)
        end = min(end, code.offset + len(code.text))
        yield Replacement(start, code.source[start:end], new)


class InsertComment:
    """Put a comment of a few words on a line of its own before a statement."""

    name = "insert-comment"

    def scout(self, code: Code) -> Iterable[Site]:
        """Statements of functions."""
        return [Site(node) for node in statements(code)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Valid wherever a statement begins a line."""
        node = site.node
        start = own_line(code, node)
        words = " ".join(random.sample(WORDS, 3))
        text = code.indent(node) + code.syntax.comment.format(words).encode() + code.newline
        yield Replacement(start, b"", text)


class RemoveDocstring:
    """Drop a Python docstring; a body that would be empty gets ``pass``."""

    name = "remove-docstring"

    def scout(self, code: Code) -> Iterable[Site]:
        """Docstrings of functions and classes."""
        if code.syntax.indented:
            for body in code.find(frozenset({"block"})):
                if _docstring(body) and body.role in _DOCUMENTED:
                    yield Site(body)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Drop it, unless the text reads docstrings."""
        if any(word in code.source for word in _READS_DOCSTRINGS):
            raise RefusedError("docstring-is-read")
        body = site.node
        doc = _docstring(body)
        rest = [n for n in body.named_children if n is not doc]
        if doc is None:
            raise RefusedError("no-docstring")
        if not [n for n in rest if n.type not in code.syntax.comments]:
            yield Replacement(doc.start, code.bytes_of(doc), b"pass")
        else:
            yield Replacement(doc.start, code.source[doc.start : rest[0].start], b"")


class InsertDocstring:
    """Give a Python function without a docstring one of a few words."""

    name = "insert-docstring"

    def scout(self, code: Code) -> Iterable[Site]:
        """Functions without a docstring."""
        if code.syntax.indented:
            for body in code.find(frozenset({"block"})):
                if not _docstring(body) and body.role == "function_definition.body":
                    yield Site(body)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Insert before the first statement."""
        body = site.node
        if any(word in code.source for word in _READS_DOCSTRINGS):
            raise RefusedError("docstring-is-read")
        if not code.begins_line(body):
            raise RefusedError("body-on-the-same-line")
        words = " ".join(random.sample(WORDS, 3)).capitalize()
        text = f'"""{words}."""'.encode() + code.newline + code.indent(body)
        yield Replacement(body.start, b"", text)


_DOCUMENTED = frozenset({"function_definition.body", "class_definition.body"})


def _docstring(body: Node) -> Node | None:
    for child in body.named_children:
        if child.type == "comment":
            continue
        inner = child.named_children
        is_string = child.type == "expression_statement" and len(inner) == 1
        if is_string and inner[0].type in ("string", "concatenated_string"):
            return child
        return None
    return None

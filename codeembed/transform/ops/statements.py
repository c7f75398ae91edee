"""Inserting statements without effect, and exchanging independent ones."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.names import fresh_name
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.ops.comments import statements
from codeembed.transform.tree import Code, Node
from codeembed.transform.values import Store, store

__all__ = ["InsertDeadCode", "PermuteStatements"]

_FIRST = (b"super", b"this(", b"'use", b'"use', b'"""', b"'''", b'r"""', b"base(")


class InsertDeadCode:
    """Insert a statement about a fresh variable before a statement."""

    name = "insert-dead-code"

    def scout(self, code: Code) -> Iterable[Site]:
        """Statements of functions."""
        return [Site(node) for node in statements(code)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Valid before a statement that need not come first and can be reached."""
        node, syntax = site.node, code.syntax
        if code.bytes_of(node).startswith(_FIRST) or node.type in ("case_statement", "label"):
            raise RefusedError("statement-must-come-first")
        before = _previous(code, node)
        if before is not None and before.type in syntax.exits:
            raise RefusedError("not-reached")
        if before is not None and ("label" in before.type or before.type == "case_statement"):
            raise RefusedError("label-before")
        name = fresh_name(code, random)
        text = random.choice(syntax.dead).format(*[name] * 2).encode()
        if code.begins_line(node):
            if syntax.newline_ends and code.source[: node.start].rstrip().endswith(b"\\"):
                raise RefusedError("line-is-continued")
            yield Replacement(node.start, b"", text + code.newline + code.indent(node))
        elif text.endswith((b";", b"}")) and code.source[: node.start].rstrip()[-1:] in b";{}":
            yield Replacement(node.start, b"", text + b" ")
        else:
            raise RefusedError("statement-shares-its-line")


class PermuteStatements:
    """Exchange two neighbouring statements that do not depend on each other.

    Both must only store a constant, a local or a sum of numbers in a local, so that neither can
    fail, call anything or be seen by the other.
    """

    name = "permute-statements"

    def scout(self, code: Code) -> Iterable[Site]:
        """Statements with another directly after them."""
        for node in statements(code):
            if _next(code, node) is not None:
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Exchange them if what one writes the other neither reads nor writes."""
        first, second = site.node, _next(code, site.node)
        if second is None:
            raise RefusedError("no-statement-after")
        left, right = store(code, first), store(code, second)
        if left is None or right is None:
            raise RefusedError("may-have-effects")
        if _reads(code, left) & _writes(code, right) or _reads(code, right) & _writes(code, left):
            raise RefusedError("depends-on-the-other")
        if _writes(code, left) & _writes(code, right):
            raise RefusedError("depends-on-the-other")
        yield replaced(code, first, code.bytes_of(second))
        yield replaced(code, second, code.bytes_of(first))


def _siblings(code: Code, node: Node) -> list[Node]:
    parent = node.parent
    return (
        [n for n in parent.named_children if n.type not in code.syntax.comments] if parent else []
    )


def _previous(code: Code, node: Node) -> Node | None:
    siblings = _siblings(code, node)
    place = siblings.index(node)
    return siblings[place - 1] if place else None


def _next(code: Code, node: Node) -> Node | None:
    siblings = _siblings(code, node)
    place = siblings.index(node) + 1
    return siblings[place] if place < len(siblings) else None


def _writes(code: Code, each: Store) -> set[str]:
    return {code.of(each.target)}


def _reads(code: Code, each: Store) -> set[str]:
    names = {code.of(n) for n in code.below(each.value) if n.type in code.syntax.variables}
    # `x += 1` reads its target as well.
    return names | {code.of(each.target)} if "augmented" in str(each.target.role) else names

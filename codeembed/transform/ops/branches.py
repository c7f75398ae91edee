"""Swapping the branches of an if statement under the negated condition."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.tree import Code, Node

__all__ = ["SwapBranches", "condition_of", "negated"]

_BINDS = frozenset(
    {"let_condition", "init_statement", "declaration", "declaration_pattern", "type_pattern"}
    | {"let_chain", "record_pattern", "var_pattern", "recursive_pattern"}
)
_PARENTHESES = frozenset({"parenthesized_expression", "condition_clause"})


def condition_of(code: Code, node: Node) -> Node:
    """The condition of an if or a loop, without binding anything.

    Raises:
        RefusedError: there is none, or it binds names.
    """
    condition = node.child("condition")
    if condition is None:
        raise RefusedError("no-condition")
    binds = any(n.type in _BINDS and n.named for n in code.below(condition))
    named_instance = any(
        n.type == "instanceof_expression" and (n.child("name") or n.child("pattern"))
        for n in code.below(condition)
    )
    if binds or named_instance or node.child("initializer"):
        raise RefusedError("condition-binds-names")
    return condition


def negated(code: Code, condition: Node) -> bytes:
    """The text that takes the place of a condition when it is negated."""
    text = code.of(condition)
    if condition.type in _PARENTHESES:
        inner = text[1:-1].strip()
        return f"({code.syntax.negation.format(inner)})".encode()
    return code.syntax.negation.format(text).encode()


class SwapBranches:
    """``if c: A else: B`` becomes ``if not (c): B else: A``."""

    name = "swap-branches"

    def scout(self, code: Code) -> Iterable[Site]:
        """If statements with an else."""
        for node in code.find(code.syntax.ifs):
            if node.child("alternative"):
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Swap two blocks; a chain of conditions keeps its order."""
        node = site.node
        condition = condition_of(code, node)
        then = node.child(code.syntax.then)
        others = node.all("alternative")
        if then is None or len(others) != 1:
            raise RefusedError("else-if")
        first, second = _span(code, then), _span(code, _else_block(code, others[0]))
        if (b"\n" in code.source[node.start : first[0]]) != (
            b"\n" in code.source[others[0].start : second[0]]
        ) and code.syntax.newline_ends:
            raise RefusedError("branches-laid-out-differently")
        of_rows = any(b"\n" in code.source[slice(*each)] for each in (first, second))
        # Only the first row of a block would get the other's indentation.
        if code.syntax.indented and of_rows and _before(code, first) != _before(code, second):
            raise RefusedError("branches-indented-differently")
        if b"//" in code.source[first[0] : first[1]].splitlines()[-1]:
            raise RefusedError("comment-ends-the-branch")
        yield replaced(code, condition, negated(code, condition))
        yield Replacement(first[0], code.source[slice(*first)], code.source[slice(*second)])
        yield Replacement(second[0], code.source[slice(*second)], code.source[slice(*first)])


def _else_block(code: Code, alternative: Node) -> Node:
    bodies = code.syntax.bodies
    if alternative.type in bodies:
        return alternative
    if alternative.type in code.syntax.ifs:
        raise RefusedError("else-if")
    blocks = [each for each in alternative.named_children if each.type in bodies]
    if not blocks or alternative.type in ("elsif", "elif_clause", "else_if_clause"):
        raise RefusedError("else-if")
    return blocks[0]


def _before(code: Code, span: tuple[int, int]) -> bytes:
    """What stands before a block on its first row."""
    return code.source[code.line_start(span[0]) : span[0]]


def _span(code: Code, block: Node) -> tuple[int, int]:
    if block.type not in code.syntax.bodies:
        raise RefusedError("branch-without-braces")
    inner = [n for n in block.named_children if n.type not in code.syntax.comments]
    if block.children and block.children[0].type == "{":
        return block.start, block.end
    if not inner:
        raise RefusedError("empty-branch")
    return inner[0].start, inner[-1].end

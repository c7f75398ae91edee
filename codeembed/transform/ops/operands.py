"""Swapping the sides of comparisons, sums and products."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.tree import Code, Node
from codeembed.transform.values import numeric, operator, plain

__all__ = ["MirrorComparison", "SwapOperands"]

_COMMUTATIVE = frozenset({"+", "*"})


class MirrorComparison:
    """``a < b`` becomes ``b > a``.

    Operators may call methods of their left operand, so both sides must be proved to be numbers;
    identity (``is``, ``===``) calls nothing, so there two plain values are enough.
    """

    name = "mirror-comparison"

    def scout(self, code: Code) -> Iterable[Site]:
        """Comparisons, chained ones included."""
        mirrors = code.syntax.mirrors
        for node in code.find(code.syntax.binary):
            if any(not each.named and each.type in mirrors for each in node.children):
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Swap the sides and turn the operator."""
        token = operator(code, site.node)
        if token is None:
            raise RefusedError("chained")
        left, right = site.node.named_children
        if token.type in code.syntax.identities:
            proved = plain(code, left) and plain(code, right)
        else:
            proved = numeric(code, left) and numeric(code, right)
        if not proved:
            raise RefusedError("operands-not-proved-numbers")
        yield replaced(code, token, code.syntax.mirrors[token.type].encode())
        yield replaced(code, left, code.bytes_of(right))
        yield replaced(code, right, code.bytes_of(left))


class SwapOperands:
    """``a + b`` becomes ``b + a`` for numbers; the grouping, hence the rounding, stays."""

    name = "swap-operands"

    def scout(self, code: Code) -> Iterable[Site]:
        """Sums and products."""
        for node in code.find(code.syntax.binary):
            token = operator(code, node)
            if token is not None and token.type in _COMMUTATIVE:
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Swap the sides."""
        left, right = site.node.named_children
        if not (numeric(code, left) and numeric(code, right)):
            raise RefusedError("operands-not-proved-numbers")
        yield replaced(code, left, self._grouped(code, right))
        yield replaced(code, right, self._grouped(code, left))

    def _grouped(self, code: Code, node: Node) -> bytes:
        text = code.bytes_of(node)
        return b"(" + text + b")" if node.type in code.syntax.binary else text

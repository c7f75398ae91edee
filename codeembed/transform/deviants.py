"""Small edits that break what code does: hard negatives that share nearly every token.

Sources: the bug kinds of BugLab (Allamanis et al., 2021) and CONCORD (Ding et al., 2023). An edit
may still leave the code equivalent; :mod:`codeembed.transform.verify` drops those that do not
differ on any input where the code can be run.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.ops.branches import condition_of, negated
from codeembed.transform.scopes import outer_functions, variables
from codeembed.transform.tree import Code, Node
from codeembed.transform.values import numeric_names

__all__ = [
    "ChangeBoundary",
    "ChangeOperator",
    "NegateCondition",
    "OffByOne",
    "SwapArguments",
    "WrongVariable",
]

_OTHER = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "*", "&&": "||", "||": "&&", "and": "or"}
_OTHER |= {"or": "and", "==": "!=", "!=": "==", "===": "!==", "!==": "===", "//": "*"}
_BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_ANY_ORDER = frozenset(
    {"max", "min", "Max", "Min", "gcd", "hypot", "equals", "Math.max", "Math.min"}
)
_BOOLEAN = frozenset({"boolean_operator"})


def _operators(code: Code) -> Iterable[tuple[Node, Node]]:
    for node in code.find(code.syntax.binary | _BOOLEAN):
        tokens = [n for n in node.children if not n.named]
        if len(node.named_children) == 2 and len(tokens) == 1 and _in_function(code, node):
            yield node, tokens[0]


def _in_function(code: Code, node: Node) -> bool:
    return any(each.type in code.syntax.functions for each in node.ancestors())


class ChangeOperator:
    """Another arithmetic, boolean or equality operator."""

    name = "change-operator"

    def scout(self, code: Code) -> Iterable[Site]:
        """Binary operators that have an opposite."""
        return [Site(node) for node, token in _operators(code) if token.type in _OTHER]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Put the opposite in."""
        token = next(n for n in site.node.children if not n.named)
        right = site.node.named_children[1]
        if code.of(right) == "0" and token.type in ("+", "-"):
            raise RefusedError("same-value")
        if code.of(right) == "1" and token.type in ("*", "/", "//"):
            raise RefusedError("same-value")
        return [replaced(code, token, _OTHER[token.type].encode())]


class ChangeBoundary:
    """``<`` becomes ``<=`` and the like."""

    name = "change-boundary"

    def scout(self, code: Code) -> Iterable[Site]:
        """Comparisons of order."""
        return [Site(node) for node, token in _operators(code) if token.type in _BOUNDARY]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Move the boundary by one case."""
        token = next(n for n in site.node.children if not n.named)
        literals = code.syntax.literals | code.syntax.numbers
        if all(each.type in literals for each in site.node.named_children):
            raise RefusedError("constant")
        return [replaced(code, token, _BOUNDARY[token.type].encode())]


class SwapArguments:
    """Two neighbouring arguments of a call change places."""

    name = "swap-arguments"

    def scout(self, code: Code) -> Iterable[Site]:
        """Calls with two arguments or more."""
        for node in code.find(code.syntax.arguments):
            if len(_positional(code, node)) > 1 and _in_function(code, node):
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Swap, unless they are the same or their order is known not to matter."""
        arguments = _positional(code, site.node)
        place = random.randrange(len(arguments) - 1)
        first, second = arguments[place : place + 2]
        if code.of(first) == code.of(second):
            raise RefusedError("same-value")
        call = site.node.parent
        called = code.of(call)[: site.node.start - call.start].strip() if call else ""
        if called in _ANY_ORDER or called.rpartition(".")[2] in _ANY_ORDER:
            raise RefusedError("order-does-not-matter")
        return [
            replaced(code, first, code.bytes_of(second)),
            replaced(code, second, code.bytes_of(first)),
        ]


def _positional(code: Code, node: Node) -> list[Node]:
    skipped = code.syntax.comments | {"keyword_argument", "pair", "block_argument"}
    return [n for n in node.named_children if n.type not in skipped and "splat" not in n.type]


class NegateCondition:
    """``if c`` becomes ``if not c``, with the branches as they were."""

    name = "negate-condition"

    def scout(self, code: Code) -> Iterable[Site]:
        """Conditions of branches and loops."""
        for node in code.find(code.syntax.conditions):
            if node.child("condition") and _in_function(code, node):
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Negate the condition."""
        condition = condition_of(code, site.node)
        return [replaced(code, condition, negated(code, condition))]


class WrongVariable:
    """A use of a local becomes another local of the same kind that is bound before it."""

    name = "wrong-variable"

    def scout(self, code: Code) -> Iterable[Site]:
        """Uses of locals and parameters."""
        for function in outer_functions(code):
            for variable in variables(code, function):
                for node in variable.occurrences:
                    if not variable.refusal and node not in variable.bindings:
                        yield Site(node, variable.name)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Choose a local whose name is bound earlier; numbers only stand for numbers."""
        node = site.node
        if node.field in ("left", "declarator") or node.type in code.syntax.shorthands:
            raise RefusedError("not-a-use")
        function = next(f for f in outer_functions(code) if node.within(f))
        numbers = numeric_names(code, function)
        kind = site.name in numbers
        others = [
            v.name
            for v in variables(code, function)
            if v.name != site.name
            and not v.refusal
            and (v.name in numbers) == kind
            and v.bindings[0].end < node.start
            and _home(code, v.bindings[0]) in {a.index for a in node.ancestors()}
        ]
        if not others:
            raise RefusedError("no-other-variable")
        return [replaced(code, node, random.choice(others).encode())]


def _home(code: Code, node: Node) -> int:
    kinds = code.syntax.functions | code.syntax.blocks
    return next((a.index for a in node.ancestors() if a.type in kinds), 0)


class OffByOne:
    """An integer literal becomes its neighbour."""

    name = "off-by-one"

    def scout(self, code: Code) -> Iterable[Site]:
        """Small decimal integers."""
        for node in code.find(code.syntax.numbers):
            text = code.of(node)
            if text.isascii() and text.isdigit() and len(text) < 10 and _in_function(code, node):
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Add one, or take one away above zero."""
        value = int(code.of(site.node))
        step = random.choice((1, -1)) if value else 1
        return [replaced(code, site.node, str(value + step).encode())]

"""The control flow of a function: its statements, and which can follow which.

Source: the CFG view of Code-MVP (Wang et al., 2022), built from the syntax tree alone: sequence,
branches, loops, ``break``, ``continue``, ``return`` and ``throw``. A ``try`` may jump from its
beginning or its end to a handler; a switch to any of its cases. Calls are taken to return.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from codeembed.transform.scopes import outer_functions
from codeembed.transform.tree import Code, Node

__all__ = ["ControlFlow", "control_flow"]


@dataclass(slots=True)
class ControlFlow:
    """A graph of statements.

    Attributes:
        statements: Byte spans in the text. A branch or loop is the span of its head.
        edges: Pairs of indices; ``len(statements)`` is the exit.
    """

    statements: list[tuple[int, int]] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def linearised(self, code: Code) -> str:
        """Statements in the order of the source, each with what can follow it."""
        exit_index = len(self.statements)
        after: dict[int, list[int]] = {}
        for source, target in self.edges:
            after.setdefault(source, []).append(target)
        lines = []
        for place, (start, end) in enumerate(self.statements):
            text = " ".join(code.text[start:end].decode("utf-8", "replace").split())
            targets = ["exit" if t == exit_index else str(t) for t in sorted(after.get(place, []))]
            lines.append(f"{place}: {text} -> {' '.join(targets)}")
        return "\n".join(lines)


_ELSES = ("else_clause", "else")
_BREAKS = ("break_statement", "break_expression", "break")
_CONTINUES = ("continue_statement", "continue_expression", "next")
_ENDS = ("return_statement", "throw_statement", "raise_statement", "return_expression", "return")


def control_flow(code: Code, function: Node | None = None) -> ControlFlow:
    """The control flow of a function; without one, of the first outermost function.

    Nested functions are single statements. A source without a function gives an empty graph.
    """
    functions = outer_functions(code)
    chosen = function or (functions[0] if functions else None)
    body = chosen.child("body") if chosen else None
    if body is None:
        return ControlFlow()
    return _Builder(code).build(body)


@dataclass(slots=True)
class _Statement:
    """A statement in the nesting of its function, without recursion."""

    node: Node
    index: int
    owner: int
    branch: int


class _Builder:
    """Numbers statements in pre-order, then links each to what follows it."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.all: list[_Statement] = []
        self.by_branch: dict[tuple[int, int], list[int]] = {}
        self.branches: dict[int, list[int]] = {}

    def build(self, body: Node) -> ControlFlow:
        self._number(body)
        flow = ControlFlow([self._head(each.node) for each in self.all])
        edges = {(each.index, target) for each in self.all for target in self._after(each)}
        flow.edges = sorted(edges)
        return flow

    def _number(self, body: Node) -> None:
        """Every statement with the statement and branch that it lies in."""
        todo: list[tuple[Node, int, int]] = [(body, -1, body.index)]
        while todo:
            node, owner, branch = todo.pop()
            if self._is_block(node):
                inner = [n for n in node.named_children if "comment" not in n.type]
                todo.extend((n, owner, branch) for n in reversed(inner))
                continue
            index = len(self.all)
            self.all.append(_Statement(node, index, owner, branch))
            self.by_branch.setdefault((owner, branch), []).append(index)
            nested = [(n, index, n.index) for n in self._blocks(node)]
            todo.extend(reversed(nested))

    def _is_block(self, node: Node) -> bool:
        return node.type in self.code.syntax.bodies or node.type == "statement_list"

    def _blocks(self, statement: Node) -> list[Node]:
        """Blocks directly under a statement, through clauses but not into functions."""
        found: list[Node] = []
        todo = [statement]
        while todo:
            node = todo.pop()
            for child in node.named_children:
                if child.type in self.code.syntax.functions | self.code.syntax.classes:
                    continue
                if self._is_block(child) or (
                    child.type in self.code.syntax.ifs
                    and (node is not statement or child.field == "alternative")
                ):
                    found.append(child)
                else:
                    todo.append(child)
        return sorted(found, key=lambda n: n.index)

    def _head(self, node: Node) -> tuple[int, int]:
        blocks = self._blocks(node)
        end = blocks[0].start if blocks else node.end
        start = node.start - self.code.offset
        text = self.code.source[node.start : end].rstrip()
        return start, start + len(text)

    def _first(self, owner: int, branch: int) -> int | None:
        inner = self.by_branch.get((owner, branch))
        return inner[0] if inner else None

    def _next(self, each: _Statement) -> int:
        """What follows when a statement ends normally: the next one, or what follows its owner."""
        while True:
            siblings = self.by_branch[each.owner, each.branch]
            place = siblings.index(each.index) + 1
            if place < len(siblings):
                return siblings[place]
            if each.owner < 0:
                return len(self.all)
            each = self.all[each.owner]
            if each.node.type in self.code.syntax.loops:
                return each.index

    def _loop(self, each: _Statement) -> _Statement | None:
        while each.owner >= 0:
            each = self.all[each.owner]
            if each.node.type in self.code.syntax.loops or "switch" in each.node.type:
                return each
        return None

    def _kind(self, node: Node) -> Node:
        """The statement itself where the grammar wraps it as an expression."""
        wraps = node.type == "expression_statement" and len(node.named_children) == 1
        return node.named_children[0] if wraps else node

    def _has_else(self, node: Node) -> bool:
        last = node
        while alternatives := last.all("alternative"):
            last = alternatives[-1]
        return last is not node and (last.type in _ELSES or self._is_block(last))

    def _after(self, each: _Statement) -> list[int]:
        exit_index = len(self.all)
        kind = self._kind(each.node).type
        if kind in _ENDS:
            return [exit_index]
        if kind in _BREAKS:
            loop = self._loop(each)
            return [self._next(loop)] if loop else [exit_index]
        if kind in _CONTINUES:
            loop = self._loop(each)
            while loop is not None and "switch" in loop.node.type:
                loop = self._loop(loop)
            return [loop.index] if loop else [exit_index]
        blocks = self._blocks(each.node)
        firsts = [self._first(each.index, block.index) for block in blocks]
        inside = [first for first in firsts if first is not None]
        if not blocks:
            return [self._next(each)]
        endless = kind == "loop_expression"
        has_else = kind in self.code.syntax.ifs and self._has_else(self._kind(each.node))
        skips = not (endless or (has_else and None not in firsts))
        return [*inside, self._next(each)] if skips else inside

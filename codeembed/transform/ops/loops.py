"""Exchanging one kind of loop for another."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.ops.branches import condition_of
from codeembed.transform.tree import Code, Node

__all__ = ["ForToWhile", "WhileToEndless", "WhileToFor"]

_CONTINUES = frozenset({"continue_statement", "continue_expression", "goto_statement"})
_SIMPLE_LAST = ("expression_statement", "declaration", "inc_statement", "assignment_statement")
_DEFERRED = frozenset({"defer_statement", "go_statement", "&"})
_PARENTHESES = frozenset({"parenthesized_expression", "condition_clause"})


def _statement_body(code: Code, loop: Node) -> Node:
    body = loop.child("body")
    if body is None or body.type not in code.syntax.bodies:
        raise RefusedError("body-without-braces")
    return body


def _not_labelled(loop: Node) -> None:
    above = loop.parent
    if above is not None and "label" in above.type:
        raise RefusedError("labelled")


class WhileToFor:
    """``while (c)`` becomes ``for (; c;)``, in languages with a loop of three parts."""

    name = "while-to-for"

    def scout(self, code: Code) -> Iterable[Site]:
        """Loops with nothing but a condition."""
        if not code.syntax.for_types:
            return
        for node in code.find(code.syntax.while_types or code.syntax.for_types):
            if code.syntax.while_types or _bare_condition(code, node) is not None:
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Always valid: a loop of three parts with two empty ones."""
        node = site.node
        if not code.syntax.while_types:
            condition = _bare_condition(code, node)
            if condition is None:
                raise RefusedError("no-condition")
            yield Replacement(condition.start, b"", b"; ")
            yield Replacement(condition.end, b"", b"; ")
            return
        condition = condition_of(code, node)
        body = node.child("body")
        if body is None or body.type == "colon_block":
            raise RefusedError("body-without-braces")
        holder = condition if condition.type in _PARENTHESES else node
        marks = [each for each in holder.children if each.type in ("(", ")")]
        if len(marks) != 2:
            raise RefusedError("no-parentheses")
        yield replaced(code, node.children[0], b"for")
        yield Replacement(marks[0].end, b"", b";")
        yield Replacement(marks[1].start, b"", b";")


def _bare_condition(code: Code, loop: Node) -> Node | None:
    """The condition of Go's ``for c {``."""
    inner = [n for n in loop.named_children if n.type not in code.syntax.comments]
    if len(inner) != 2 or inner[0].type in ("for_clause", "range_clause"):
        return None
    return inner[0]


class ForToWhile:
    """``for (init; c; step) body`` becomes ``{ init; while (c) { body step; } }``."""

    name = "for-to-while"

    def scout(self, code: Code) -> Iterable[Site]:
        """Loops of three parts."""
        for node in code.find(code.syntax.for_types):
            if len(_semicolons(code, node)) == 2:
                yield Site(node)

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Lower the loop, unless the step could be skipped or see other variables."""
        node = site.node
        body = _statement_body(code, node)
        _not_labelled(node)
        _check_body(code, body)
        first, second = _semicolons(code, node)
        header = [n for n in node.children if n.type == "(" and n.end <= first.start]
        start = header[0].end if header else node.children[0].end
        closing = [n for n in node.children if n.type == ")" and n.start >= second.end]
        end = closing[-1].start if closing else body.start
        init = code.source[start : first.start].strip()
        condition = code.source[first.end : second.start].strip()
        step = code.source[second.end : end].strip()
        if not condition or not step:
            raise RefusedError("part-missing")
        if b"," in step or (b"," in init and b"=" not in init):
            raise RefusedError("several-steps")
        if b"//" in init + condition + step or b"/*" in init + condition + step:
            raise RefusedError("comment-in-the-head")
        _check_shadowing(code, body, second.end, end)
        inner_start, inner_end = body.children[0].end, body.children[-1].start
        head = code.syntax.while_head.format(condition.decode("utf-8", "replace")).encode()
        opening = b"{ " + (init + b"; " if init else b"") + head + b"{"
        yield Replacement(node.start, code.source[node.start : inner_start], opening)
        gap = code.source[code.line_start(inner_end) : inner_end]
        step += b";"
        if gap.strip():
            space = b"" if gap.endswith((b" ", b"\t", b"{")) else b" "
            yield Replacement(inner_end, b"", space + step + b" ")
        else:
            yield Replacement(inner_end, b"", step + code.newline + gap)
        yield Replacement(node.end, b"", b" }")


def _semicolons(code: Code, loop: Node) -> list[Node]:
    body = loop.child("body")
    limit = body.start if body else loop.start
    return [n for n in code.below(loop) if n.type == ";" and not n.named and n.end <= limit]


def _check_body(code: Code, body: Node) -> None:
    syntax = code.syntax
    inner = [n for n in body.named_children if n.type not in syntax.comments]
    if len(inner) == 1 and inner[0].type == "statement_list":
        inner = inner[0].named_children
    for node in code.below(body):
        if node.type in _CONTINUES:
            loop = next((a for a in node.ancestors() if a.type in syntax.loops), None)
            if node.named_children or loop is None or loop.index <= body.index:
                raise RefusedError("continue-skips-the-step")
        if node.type in syntax.functions or node.type in syntax.classes:
            raise RefusedError("closure-in-the-body")
        if node.type in _DEFERRED:
            raise RefusedError("variable-outlives-a-turn")
    last = inner[-1] if inner else None
    # After a statement that never ends normally the step would be unreachable: an error in Java.
    if last is not None and not (
        last.type.endswith(_SIMPLE_LAST)
        or (last.type in syntax.ifs and not last.child("alternative"))
        or last.type in syntax.for_types
        or last.type == "enhanced_for_statement"
    ):
        raise RefusedError("end-may-not-be-reached")


def _check_shadowing(code: Code, body: Node, start: int, end: int) -> None:
    names = {code.of(n) for n in code.nodes if start <= n.start and n.end <= end and not n.children}
    for node in code.below(body):
        declares = node.field in ("name", "declarator", "left", "pattern")
        declared = declares and any("decl" in a.type for a in list(node.ancestors())[:3])
        if declared and code.of(node) in names:
            raise RefusedError("step-shadowed-in-the-body")


class WhileToEndless:
    """``while c`` becomes a loop without an end that first breaks unless ``c``."""

    name = "while-to-endless-loop"

    def scout(self, code: Code) -> Iterable[Site]:
        """While loops of languages with an endless loop."""
        return [Site(n) for n in code.find(code.syntax.while_types) if code.syntax.endless]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Move the condition into the body."""
        node, syntax = site.node, code.syntax
        body = _statement_body(code, node)
        condition = condition_of(code, node)
        if node.child("alternative"):
            raise RefusedError("loop-with-else")
        if not any(n.type in syntax.variables for n in code.below(condition)):
            raise RefusedError("constant-condition")
        text = code.of(condition)
        inner = text[1:-1] if condition.type in _PARENTHESES else text
        if "\n" in inner and syntax.indented:
            raise RefusedError("condition-of-several-lines")
        guard = syntax.guard.format(inner.strip()).encode()
        if syntax.indented:
            if not code.begins_line(body):
                raise RefusedError("body-on-the-same-line")
            colon = next(each for each in node.children if each.type == ":")
            head = code.source[node.start : colon.end]
            yield Replacement(node.start, head, syntax.endless.encode())
            yield Replacement(body.start, b"", guard + code.newline + code.indent(body))
            return
        opening = body.children[0]
        start = node.children[0].start if node.children[0].type == "while" else condition.start
        keyword = next((n for n in node.children if n.type == "while"), None)
        start = keyword.start if keyword else start
        between = code.source[start : opening.end]
        if b"//" in between or b"/*" in between:
            raise RefusedError("comment-in-the-head")
        yield Replacement(start, between, syntax.endless.encode() + b"{ " + guard)

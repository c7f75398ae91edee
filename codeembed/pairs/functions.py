"""The functions of a file, each with its documentation apart from its code."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

from codeembed.tokenize import words
from codeembed.transform.edit import Edit, Replacement
from codeembed.transform.scopes import outer_functions
from codeembed.transform.tree import Code, Node

__all__ = ["Block", "Function", "blocks_of", "functions_of", "name_words"]

_WRAPPERS = frozenset({"decorated_definition", "export_statement", "template_declaration"})
_NAMES = frozenset({"identifier", "field_identifier", "property_identifier", "name", "constant"})


@dataclass(frozen=True, slots=True)
class Function:
    """A named function or method.

    Attributes:
        name: As written.
        documentation: The docstring, or the comments directly above; may be empty.
        code: The function without its documentation, dedented.
        line: 1-based line of the first byte of the function.
        body: Its code from the body on, without the signature that names it.
    """

    name: str
    documentation: str
    code: str
    line: int
    body: str


@dataclass(frozen=True, slots=True)
class Block:
    """A comment inside a function and the statements that follow it, up to a blank line."""

    comment: str
    code: str
    line: int


def name_words(name: str) -> list[str]:
    """The lower-case words of an identifier: ``readHTTPHeader`` gives ``read http header``."""
    found = words(name)
    return found[1:] or found


def functions_of(code: Code) -> list[Function]:
    """The outermost functions and methods that have a name and a body."""
    found: list[Function] = []
    for node in outer_functions(code):
        name, body = _name(code, node), node.child("body")
        if not name or body is None or not code.inside(node):
            continue
        whole = node.parent if node.parent and node.parent.type in _WRAPPERS else node
        docstring = _docstring(code, body)
        documentation = _docstring_text(code.of(docstring)) if docstring else _above(code, whole)
        gone = [(docstring.start, docstring.end)] if docstring else []
        found.append(
            Function(
                name,
                documentation,
                _without(code, whole.start, whole.end, gone),
                code.source.count(b"\n", code.offset, whole.start) + 1,
                _without(code, body.start, body.end, gone),
            )
        )
    return found


def blocks_of(code: Code) -> list[Block]:
    """Comments on lines of their own inside functions, with the statements below them."""
    found: list[Block] = []
    functions = {node.index: node for node in outer_functions(code)}
    for node in code.nodes:
        siblings = node.children
        if not any(each.type in code.syntax.comments for each in siblings):
            continue
        if not any(a.index in functions for a in (node, *node.ancestors())):
            continue
        at = 0
        while at < len(siblings):
            first = at
            while at < len(siblings) and _own_line_comment(code, siblings[at]):
                at += 1
            if at == first:
                at += 1
                continue
            last = at
            while last < len(siblings) and siblings[last].named and _close(code, siblings, last):
                last += 1
            if last > at:
                comment = "\n".join(code.of(each) for each in siblings[first:at])
                text = _without(code, siblings[at].start, siblings[last - 1].end, [])
                line = code.source.count(b"\n", code.offset, siblings[first].start) + 1
                found.append(Block(comment, text, line))
            at = max(last, at)
    return found


def _own_line_comment(code: Code, node: Node) -> bool:
    return node.type in code.syntax.comments and code.begins_line(node) and code.inside(node)


def _close(code: Code, siblings: list[Node], at: int) -> bool:
    """Whether no blank line and no further comment lies between a sibling and the one before."""
    if siblings[at].type in code.syntax.comments:
        return False
    gap = code.source[siblings[at - 1].end : siblings[at].start]
    # Some grammars end a comment behind its line feed.
    lines = gap.count(b"\n") + code.bytes_of(siblings[at - 1]).endswith(b"\n")
    return lines <= 1 and not gap.strip(b" \t\r\n;")


def _name(code: Code, node: Node) -> str:
    """The function's name; in C below its declarators."""
    found = node.child("name") or node.child("declarator")
    while found is not None and found.type not in _NAMES:
        below = found.child("declarator") or found.child("name")
        if below is None:
            return ""
        found = below
    return code.of(found) if found is not None else ""


def _docstring(code: Code, body: Node) -> Node | None:
    """The string statement that a Python body begins with."""
    if code.language.name != "python":
        return None
    first = next((n for n in body.named_children if n.type not in code.syntax.comments), None)
    if first is None or first.type != "expression_statement" or len(body.named_children) < 2:
        return None
    inner = first.named_children
    return first if len(inner) == 1 and inner[0].type == "string" else None


def _docstring_text(literal: str) -> str:
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return ""
    return value if isinstance(value, str) else ""


def _above(code: Code, node: Node) -> str:
    """The comments that end on the line directly above a node."""
    siblings = node.parent.children if node.parent else []
    at = next((i for i, each in enumerate(siblings) if each is node), 0)
    found: list[str] = []
    while at > 0 and _own_line_comment(code, siblings[at - 1]):
        if not _close_comment(code, siblings[at - 1], siblings[at]):
            break
        at -= 1
        found.append(code.of(siblings[at]))
    return "\n".join(reversed(found))


def _close_comment(code: Code, comment: Node, after: Node) -> bool:
    gap = code.source[comment.start : after.start].rstrip(b" \t")
    return not gap.endswith((b"\n\n", b"\r\n\r\n"))


def _without(code: Code, start: int, end: int, gone: list[tuple[int, int]]) -> str:
    """Source bytes without some ranges and their lines, dedented."""
    start = (
        code.line_start(start) if not code.source[code.line_start(start) : start].strip() else start
    )
    text = code.source[start:end]
    cut = [
        (code.line_start(a) - start, min(code.line_end(b) + 1, end) - start)
        if code.line_start(a) >= start and not code.source[b : code.line_end(b)].strip()
        else (a - start, b - start)
        for a, b in gone
    ]
    edit = Edit.of(Replacement(a, text[a:b], b"") for a, b in cut)
    return textwrap.dedent(edit.apply(text).decode("utf-8", "replace")).strip("\r\n")

"""Which names of a function are its locals, where they occur, and whether they may be renamed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache

from codeembed.transform.op import RefusedError
from codeembed.transform.tree import Code, Node

__all__ = ["Variable", "check_free", "enclosing_function", "outer_functions", "variables"]


@dataclass(slots=True)
class Variable:
    """Every local of one name in an outermost function: shadowed ones are renamed together.

    Attributes:
        name: As written, with its sigil.
        function: The outermost function.
        bindings: Where it gets its value or its declaration.
        occurrences: Every place, bindings included, in the order of the source.
        is_parameter: Some binding is a parameter.
        refusal: Why it must keep its name, or ``""``.
    """

    name: str
    function: Node
    bindings: list[Node] = field(default_factory=list)
    occurrences: list[Node] = field(default_factory=list)
    is_parameter: bool = False
    refusal: str = ""


def outer_functions(code: Code) -> list[Node]:
    """Functions that lie in no other function."""
    found: list[Node] = []
    for node in code.find(code.syntax.functions):
        if (not found or node.index >= found[-1].last) and code.inside(node):
            found.append(node)
    return found


def enclosing_function(code: Code, node: Node) -> Node | None:
    """The nearest function around a node."""
    return next((n for n in node.ancestors() if n.type in code.syntax.functions), None)


@lru_cache(maxsize=128)
def variables(code: Code, function: Node) -> tuple[Variable, ...]:
    """The locals and parameters of an outermost function, by first occurrence."""
    occurrences: dict[str, list[Node]] = defaultdict(list)
    mentions: dict[str, list[Node]] = defaultdict(list)
    for node in code.below(function):
        if node.named and node.type in code.syntax.variables and not _is_other(code, node):
            occurrences[code.of(node)].append(node)
        elif not node.children and node.named:
            mentions[code.of(node)].append(node)
    scopes = _bindings(code, function, occurrences)
    poisoned = _poison(code, function)
    strings = _string_words(code, function) if code.syntax.strings_mention else frozenset()
    found: list[Variable] = []
    for name, nodes in occurrences.items():
        bindings = [node for node in nodes if node.index in scopes.binders]
        if not bindings or name in ("_", "self", "cls", "this", "$this"):
            continue
        if code.syntax.capitals_are_constants and name[0].isupper():
            continue
        variable = Variable(name, function, bindings, nodes)
        variable.is_parameter = any(_is_parameter(code, node) for node in bindings)
        bare = name.removeprefix(code.syntax.sigil)
        variable.refusal = (
            poisoned
            or ("mentioned-in-string" if name in strings else "")
            or _mention_refusal(code, mentions.get(bare, []), nodes)
            or _occurrence_refusal(code, scopes, nodes)
        )
        found.append(variable)
    return tuple(found)


def check_free(code: Code, name: str) -> None:
    """Refuse a name that anything in the source already has, format strings included."""
    bare = name.removeprefix(code.syntax.sigil)
    if bare in code.words or name in code.words or bare in code.syntax.keywords:
        raise RefusedError("name-taken")
    if code.syntax.strings_mention and bare in _string_words(code, code.root):
        raise RefusedError("name-taken")


@dataclass(slots=True)
class _Scopes:
    """Names bound by each scope (by its index) with the offset from which they are visible."""

    names: dict[tuple[int, str], int]
    binders: set[int]
    members: set[str]
    function: int


def _bindings(code: Code, function: Node, occurrences: dict[str, list[Node]]) -> _Scopes:
    scopes = _Scopes({}, set(), set(), function.index)
    for name, nodes in occurrences.items():
        for node in nodes:
            top = _binder(code, node)
            if top is None:
                continue
            scopes.binders.add(node.index)
            home = _home(code, top, function)
            if home.type in code.syntax.classes:
                scopes.members.add(name)
                continue
            key = (home.index, name)
            visible = _visible_from(code, node, top)
            scopes.names[key] = min(visible, scopes.names.get(key, visible))
    return scopes


def _roles(node: Node) -> tuple[str, str]:
    above = node.parent.parent.type if node.parent and node.parent.parent else ""
    return node.role, f"{above}>{node.role}"


def _binder(code: Code, node: Node) -> Node | None:
    """The topmost pattern around a name that a declaration binds, or None for a plain use."""
    syntax = code.syntax
    all_binders = syntax.binders | syntax.function_binders
    while node.parent is not None:
        if any(role in all_binders for role in _roles(node)):
            return node
        if node.role not in syntax.patterns and node.parent.type not in syntax.patterns:
            return None
        if node.field and node.role not in syntax.patterns:
            return None
        node = node.parent
    return None


def _home(code: Code, top: Node, function: Node) -> Node:
    syntax = code.syntax
    to_function = any(role in syntax.function_binders for role in _roles(top))
    kinds = syntax.functions | syntax.classes
    if not to_function:
        kinds |= syntax.blocks
    # A function's name is looked up outside of it, but only parameters get here from its head.
    return next(
        (n for n in top.ancestors() if n.type in kinds and n.within(function)),
        function,
    )


def _visible_from(code: Code, node: Node, top: Node) -> int:
    if not code.syntax.positional:
        return 0
    for above in top.ancestors():
        if above.type in code.syntax.visible_after:
            body = above.child("body")
            return body.start if body else above.end
        if above.type in code.syntax.functions or above.type in code.syntax.bodies:
            break
    return node.start


def _is_parameter(code: Code, node: Node) -> bool:
    top = _binder(code, node)
    return top is not None and any(role in code.syntax.parameters for role in _roles(top))


def _is_other(code: Code, node: Node) -> bool:
    others = code.syntax.others
    return node.type in others or any(role in others for role in _roles(node))


def _is_refused(code: Code, node: Node) -> bool:
    refused = code.syntax.refused
    return any(role in refused for role in _roles(node)) or bool(
        node.parent and node.parent.parent and node.parent.parent.type in refused
        and node.parent.type in code.syntax.patterns
    )  # fmt: skip


def _in_prototype(code: Code, node: Node) -> bool:
    """Whether a name stands among the parameters of a function that is only declared."""
    listed = False
    for above in node.ancestors():
        if above.type in code.syntax.prototypes:
            return listed
        if above.type == "parameter_list":
            listed = True
        elif not above.type.endswith(("declarator", "parameter_declaration")):
            listed = False
    return False


def _occurrence_refusal(code: Code, scopes: _Scopes, nodes: list[Node]) -> str:
    name = code.of(nodes[0])
    if name in scopes.members:
        return "member-of-the-same-name"
    for node in nodes:
        if _is_refused(code, node):
            return "role-keeps-its-name"
        if code.syntax.prototypes and _in_prototype(code, node):
            return "named-in-a-prototype"
        in_macro = node.parent is not None and node.parent.type == "token_tree"
        if in_macro and not _plain_token(code, node):
            return "unclear-in-a-macro"
        refusal = _unresolved(code, scopes, name, node)
        if refusal:
            return refusal
    return ""


def _unresolved(code: Code, scopes: _Scopes, name: str, node: Node) -> str:
    for above in node.ancestors():
        if above.type in code.syntax.classes:
            return "used-across-a-class"
        visible = scopes.names.get((above.index, name))
        if visible is not None and node.start >= visible:
            return ""
        if node.index in scopes.binders and visible is not None:
            return ""
        if above.index == scopes.function:
            break
    return "also-a-free-name"


def _plain_token(code: Code, node: Node) -> bool:
    """Whether a name among a macro's tokens can only be the variable, not a field or a label."""
    siblings = node.parent.children if node.parent else [node]
    place = siblings.index(node)
    before = code.of(siblings[place - 1]) if place else ""
    after = code.of(siblings[place + 1]) if place + 1 < len(siblings) else ""
    in_braces = code.of(siblings[0]) == "{"
    return not in_braces and before not in (".", "::") and after not in ("=", "::", ":", "!")


def _mention_refusal(code: Code, mentions: list[Node], nodes: list[Node]) -> str:
    own = {node.index for node in nodes}
    for leaf in mentions:
        if leaf.parent is not None and leaf.parent.index in own:
            continue
        if not _is_other(code, leaf):
            return "mentioned-elsewhere"
    return ""


def _poison(code: Code, function: Node) -> str:
    names = code.syntax.poison_names
    for node in code.below(function):
        if node.type in code.syntax.poison and node.named:
            return "names-may-be-read-at-run-time"
        if node.type in ("identifier", "name", "super") and code.of(node) in names:
            return "names-may-be-read-at-run-time"
        # Python's f"{x=}" prints the name itself.
        if node.type == "interpolation" and any(each.type == "=" for each in node.children):
            return "names-may-be-read-at-run-time"
        if node.type == "interpolation" and code.of(node).rstrip("} ").endswith("="):
            return "names-may-be-read-at-run-time"
    return ""


@lru_cache(maxsize=128)
def _string_words(code: Code, function: Node) -> frozenset[str]:
    words: set[str] = set()
    for node in code.below(function):
        if "string" in node.type:
            words.update(re.findall(r"\w+", code.of(node)))
    return frozenset(words)

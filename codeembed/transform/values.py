"""Which expressions and statements can be moved: numbers, constants and plain locals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from codeembed.transform.scopes import Variable, outer_functions, variables
from codeembed.transform.tree import Code, Node

__all__ = ["Store", "numeric", "numeric_names", "operator", "plain", "store"]

_SUMS = frozenset({"+", "-", "*", "(", ")"})
_GROUPS = frozenset({"parenthesized_expression", "parenthesized_statements", "expression_list"})
_STORES = frozenset({"+=", "-=", "*="})
_NOT_SCALAR = frozenset({"pointer_declarator", "array_declarator", "reference_declarator"})


@dataclass(frozen=True, slots=True)
class Store:
    """A statement that only gives one local a value."""

    target: Node
    value: Node


def _function_of(code: Code, node: Node) -> Node | None:
    return next((f for f in outer_functions(code) if node.within(f)), None)


def operator(code: Code, node: Node) -> Node | None:
    """The operator between two operands, or None for chains and other nodes."""
    if node.type not in code.syntax.binary or len(node.named_children) != 2:
        return None
    tokens = [each for each in node.children if not each.named]
    return tokens[0] if len(tokens) == 1 else None


def numeric(code: Code, node: Node) -> bool:
    """Whether an expression is proved to be a sum or product of machine numbers."""
    function = _function_of(code, node)
    return function is not None and _is_sum(code, node, numeric_names(code, function))


def plain(code: Code, node: Node) -> bool:
    """Whether reading an expression can have no effect: a constant, a local, or a numeric sum."""
    function = _function_of(code, node)
    if function is None:
        return False
    if node.type in code.syntax.literals:
        return not any(each.type == "interpolation" for each in code.below(node))
    if node.type in code.syntax.variables:
        return any(v.name == code.of(node) and not v.refusal for v in variables(code, function))
    return numeric(code, node)


@lru_cache(maxsize=64)
def numeric_names(code: Code, function: Node) -> frozenset[str]:
    """Locals that only ever hold numbers: the greatest set that its own assignments support."""
    found = {v.name: v for v in variables(code, function) if not v.refusal}
    names = {name for name, v in found.items() if not _maybe_other(code, v)}
    changed = True
    while changed:
        keep = {name for name in names if _supported(code, found[name], frozenset(names))}
        changed = keep != names
        names = keep
    return frozenset(names)


def _is_sum(code: Code, node: Node, names: frozenset[str]) -> bool:
    syntax = code.syntax
    for each in code.below(node):
        if each.parent is not None and each.parent.type in syntax.numbers:
            continue
        if each.parent is not None and each.parent.type in syntax.variables and each is not node:
            continue
        if not each.named:
            ok = each.type in _SUMS or each.type in syntax.numbers
        elif each.type in syntax.variables:
            ok = code.of(each) in names
        elif each.type in syntax.binary:
            token = operator(code, each)
            ok = token is not None and token.type in _SUMS
        else:
            ok = each.type in syntax.numbers or each.type in _GROUPS
        if not ok:
            return False
    return True


def _declared(code: Code, node: Node) -> str | None:
    """The written type of a declared name; None if there is none, ``""`` if it is no scalar."""
    below = node
    for above in node.ancestors():
        if above.type in _NOT_SCALAR:
            return ""
        types = above.all("type")
        if types and below.field != "type":
            scalar = "dimensions" not in {each.type for each in below.children}
            return code.of(types[0]) if scalar else ""
        if above.type in code.syntax.bodies or above.type in code.syntax.functions:
            return None
        below = above
    return None


def _maybe_other(code: Code, variable: Variable) -> bool:
    """Whether something out of sight may give the variable another value."""
    for node in variable.occurrences:
        parent = node.parent
        if parent is None or parent.type in ("by_ref", "reference_modifier"):
            return True
        # PHP may take any argument by reference.
        if code.syntax.sigil and parent.type == "argument":
            return True
        if any(each.type == "reference_modifier" for each in parent.children):
            return True
    return False


def _supported(code: Code, variable: Variable, names: frozenset[str]) -> bool:
    types = code.syntax.numeric_types
    if types:
        declared = [_declared(code, node) for node in variable.bindings]
        if all(each is not None and each in types for each in declared):
            return True
        if any(each is not None and each not in ("auto", "var", *types) for each in declared):
            return False
    if variable.is_parameter:
        return False
    for node in variable.occurrences:
        if not _keeps_number(code, node, names, node in variable.bindings):
            return False
    return True


def _keeps_number(code: Code, node: Node, names: frozenset[str], binds: bool) -> bool:
    parent = node.parent
    if parent is None:
        return False
    if parent.type == "for_statement" and node.field == "left":
        right = parent.child("right")
        return (
            right is not None
            and code.of(right).startswith("range(")
            and code.language.name == ("python")
        )
    above = parent
    while above.type == "expression_list" and len(above.named_children) == 1 and above.parent:
        above = above.parent
    is_target = node.field == "left" or (binds and above is not parent)
    if binds or is_target or node.field == "name":
        value = above.child("right") or above.child("value")
        tokens = {each.type for each in above.children if not each.named}
        augmented = [
            t for t in tokens if t.endswith("=") and t not in ("=", ":=", "==", "<=", ">=")
        ]
        if is_target and parent.type in code.syntax.binary:
            return True
        if any(token not in _STORES for token in augmented):
            return False
        return value is not None and _is_sum(code, value, names)
    # A name inside a pattern gets a value that is not looked into.
    role = parent.type
    return not ("pattern" in role or role in ("list_literal", "left_assignment_list", "array"))


def store(code: Code, statement: Node) -> Store | None:
    """The target and value of a statement that only stores a plain value in one local."""
    syntax = code.syntax
    function = _function_of(code, statement)
    if function is None:
        return None
    free = {v.name: v for v in variables(code, function) if not v.refusal}
    targets: list[tuple[Node, Node]] = []
    for node in code.below(statement):
        if node.type not in syntax.variables or node.parent is None:
            continue
        value = node.parent.child("right") or node.parent.child("value")
        stored = node.field in ("left", "name", "declarator", "pattern")
        if stored and value is not None and node.parent.type not in syntax.binary:
            targets.append((node, value))
    if len(targets) != 1:
        return None
    target, value = targets[0]
    variable = free.get(code.of(target))
    tokens = {n.type for n in code.below(statement) if not n.named and not n.within(value)}
    if variable is None or not tokens <= {"=", ";", ":=", "let", "var", "const", "int", "$", "mut"}:
        return None
    if syntax.declares_types and code.of(target) not in numeric_names(code, function):
        return None
    return Store(target, value) if plain(code, value) else None

"""Methods of Java and C#: which can be called, and of what class."""

from __future__ import annotations

import re
from collections.abc import Callable

from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import Types
from codeembed.transform.syntax import words
from codeembed.transform.tree import Code, Node

__all__ = ["WHOLE", "last_method"]

WHOLE = "Whole"
"""The class that methods without one are put into."""

_METHODS = words("method_declaration local_function_statement")
_LEFT_OUT = words("modifiers modifier marker_annotation annotation line_comment comment")
_ABOVE = words(
    "class_body declaration_list namespace_declaration file_scoped_namespace_declaration"
    " global_statement program compilation_unit"
)


def last_method(code: Code, types: Types, written: Callable[[str], str] = str) -> Target | None:
    """The last method whose arguments have known types, of a class that can be made without any.

    Args:
        code: The source.
        types: Those for which values are made.
        written: What the table has for a written type.
    """
    for node in reversed(code.find(_METHODS)):
        found = _target(code, node, types, written)
        if found is not None:
            return found
    return None


def _target(code: Code, node: Node, types: Types, written: Callable[[str], str]) -> Target | None:
    classes = [each for each in node.ancestors() if each.type == "class_declaration"]
    between = [each for each in node.ancestors() if each not in classes]
    name, parameters = node.child("name"), node.child("parameters")
    if name is None or parameters is None or node.child("body") is None or len(classes) > 1:
        return None
    if any(each.type not in _ABOVE for each in between) or node.child("type_parameters"):
        return None
    owner = ""
    if classes:
        called = classes[0].child("name")
        owner = code.of(called) if called else ""
        makes = "constructor_declaration" in {each.type for each in code.below(classes[0])}
        head = code.source[node.start : name.start].split()
        if not owner or (makes and b"static" not in head) or classes[0].child("type_parameters"):
            return None
    inner = [n for n in parameters.named_children if n.type not in code.syntax.comments]
    if any(each.type not in ("formal_parameter", "parameter") for each in inner):
        return None
    types_of = tuple(written(_type(code, each)) for each in inner)
    if types.shapes(types_of) is None:
        return None
    return Target(code.of(name), len(inner), types_of, owner=owner)


def _type(code: Code, parameter: Node) -> str:
    name = parameter.child("name")
    kept = [n for n in parameter.children if n is not name and n.type not in _LEFT_OUT]
    text = " ".join(code.of(each) for each in kept)
    return re.sub(r"\s*([\[\]<>,.])\s*", r"\1", " ".join(text.split()))

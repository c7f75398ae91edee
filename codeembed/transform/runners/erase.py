"""TypeScript without its types, as Node's own stripping leaves it: spaces where they were."""

from __future__ import annotations

from codeembed.transform.syntax import words
from codeembed.transform.tree import Code, Node
from mmembed.errors import InputError

__all__ = ["without_types"]

_TYPES = words(
    "type_annotation type_parameters type_arguments interface_declaration type_alias_declaration"
    " accessibility_modifier override_modifier function_signature ambient_declaration"
    " implements_clause asserts_annotation type_predicate_annotation"
)
# What is more than a mark: it makes code, or moves it.
_NOT_ERASABLE = words(
    "enum_declaration internal_module module decorator import_alias abstract_class_declaration"
    " abstract_method_signature"
)
# What follows the first child is the type.
_CASTS = words("as_expression satisfies_expression non_null_expression")
_MARKS = frozenset({"?", "!", "readonly", "declare", "abstract"})
_MARKED = words("optional_parameter public_field_definition method_definition variable_declarator")


def without_types(text: str) -> str | None:
    """JavaScript that does what the TypeScript does; None where erasing alone gives none.

    Arrow functions whose ``)`` and ``=>`` are on two lines, and types that open a line without a
    semicolon before it, are left to fail.
    """
    try:
        code = Code.read(text.encode(), "typescript")
    except InputError:
        return None
    if code.prefix or any(node.type in _NOT_ERASABLE for node in code.nodes if node.named):
        return None
    erased = bytearray(code.source)
    for node in code.nodes:
        for start, end in _spans(code, node):
            kept = (byte if byte in b"\r\n" else 32 for byte in erased[start:end])
            erased[start:end] = bytes(kept)
    return erased.decode("utf-8", "replace")


def _spans(code: Code, node: Node) -> list[tuple[int, int]]:
    if node.type in _TYPES and node.named:
        return [(node.start, node.end)]
    if node.type in _CASTS:
        return [(node.named_children[0].end, node.end)]
    if node.type == "required_parameter" and node.children[0].type == "this":
        after = code.source[node.end :]
        comma = len(after) - len(after.lstrip())
        return [(node.start, node.end + comma + (after.lstrip()[:1] == b","))]
    if node.type in _MARKS and not node.named and node.parent and node.parent.type in _MARKED:
        return [(node.start, node.end)]
    return []

"""Filters for Qdrant, which has no globs, no substrings and no order of strings.

Conditions that it lacks are looked up first: the rows are read, and the condition becomes the list
of ids that meet it. That is right at any size, and slow at a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdrant_client import models

from mmembed.search.filters import (
    And,
    Compare,
    Contains,
    FieldType,
    Filter,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Scalar,
)

__all__ = ["HAS", "ID", "TEXT", "to_qdrant"]

# Keys of the payload beside the fields, which begin with a letter.
ID, TEXT, HAS = "_id", "_text", "_has"
_OWN_KEYS = {"id": ID, "text": TEXT}

Lookup = Callable[[Filter], Sequence[str]]
"""Point ids of the rows that meet a condition."""


def to_qdrant(tree: Filter, fields: Mapping[str, FieldType], lookup: Lookup) -> models.Filter:
    """A checked filter in Qdrant's form."""
    return models.Filter(must=[_condition(tree, fields, lookup)])


def _condition(tree: Filter, fields: Mapping[str, FieldType], lookup: Lookup) -> Any:
    match tree:
        case And(parts):
            return models.Filter(must=[_condition(part, fields, lookup) for part in parts])
        case Or(parts) if parts:
            return models.Filter(should=[_condition(part, fields, lookup) for part in parts])
        case Or(_) | In(_, ()):
            return _NOTHING
        case Not(part):
            return models.Filter(must_not=[_condition(part, fields, lookup)])
        case IsNull(field):
            return models.Filter(must_not=[_has(field)]) if field not in _OWN_KEYS else _NOTHING
        case In(field, values):
            equal = [_equals(field, value, fields) for value in values]
            return models.Filter(should=equal)
        case Compare(field, "==", value):
            return _equals(field, value, fields)
        case Compare(field, op, value) if fields[field] in ("int", "float"):
            names = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
            limits: Any = {names[op]: float(value)}
            return models.FieldCondition(key=_key(field), range=models.Range(**limits))
        case Contains(field, value) if fields[field] == "list[str]":
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case Compare() | Like() | Contains():
            return models.HasIdCondition(has_id=list(lookup(tree)))


_NOTHING = models.HasIdCondition(has_id=[])


def _has(field: str) -> models.FieldCondition:
    return models.FieldCondition(key=HAS, match=models.MatchValue(value=field))


def _key(field: str) -> str:
    return _OWN_KEYS.get(field, field)


def _equals(field: str, value: Scalar, fields: Mapping[str, FieldType]) -> models.FieldCondition:
    if fields[field] == "float":
        same = models.Range(gte=float(value), lte=float(value))
        return models.FieldCondition(key=_key(field), range=same)
    match: Any = models.MatchValue(value=value)
    return models.FieldCondition(key=_key(field), match=match)

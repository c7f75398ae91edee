"""Metadata filters: a small language, parsed to a tree, checked against the store's fields.

    modality == "image" and year >= 2020 and path like "holiday/*"
    page in [1, 2] or not tags contains "draft"
    {"modality": "image", "year": {">=": 2020}, "lang": ["de", "en"]}

A filter never reaches a store as text: it is parsed here, its fields and types are checked, and
each store compiles or evaluates the tree. Logic is two-valued: a comparison with a field that an
item lacks is false, so ``!=`` and ``not`` keep the items that lack it. ``like`` is a glob over the
whole value, in which ``*`` stands for any characters (also ``/``) and ``?`` for one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeAlias

from mmembed.errors import InputError

__all__ = [
    "DATAFUSION",
    "OPERATORS",
    "POSTGRES",
    "And",
    "Compare",
    "Contains",
    "Dialect",
    "FieldType",
    "Filter",
    "FilterLike",
    "In",
    "IsNull",
    "Like",
    "Not",
    "Operator",
    "Or",
    "Scalar",
    "check_filter",
    "matches",
    "to_sql",
]

Scalar: TypeAlias = str | int | float | bool
FieldType: TypeAlias = Literal["str", "int", "float", "bool", "list[str]"]
Operator: TypeAlias = Literal["==", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Compare:
    """A field against a value."""

    field: str
    op: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """A field against several values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A case-sensitive glob over a string: ``*`` any characters, ``?`` one."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """A substring of a string, or a member of a list."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a field has no value."""

    field: str


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """All of several conditions."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of several conditions."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Compare | In | Like | Contains | IsNull | Not | And | Or
FilterLike: TypeAlias = "str | Mapping[str, Any] | Filter"


def check_filter(tree: Filter, fields: Mapping[str, FieldType]) -> None:
    """Refuse a filter that does not fit the fields of a store.

    Raises:
        InputError: it names an unknown field, or compares a field with a value of another type.
    """
    _check(tree, fields)


def matches(tree: Filter, row: Mapping[str, Any]) -> bool:
    """Whether a row passes a checked filter; a field that is absent or None is missing."""
    match tree:
        case And(parts):
            return all(matches(part, row) for part in parts)
        case Or(parts):
            return any(matches(part, row) for part in parts)
        case Not(part):
            return not matches(part, row)
        case IsNull(field):
            return row.get(field) is None
    value = row.get(tree.field)
    if value is None:
        return False
    match tree:
        case Compare(_, op, operand):
            return bool(OPERATORS[op](value, operand))
        case In(_, values):
            return value in values
        case Like(_, pattern):
            return _glob(pattern).fullmatch(value) is not None
        case Contains(_, needle):
            return needle in value


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine writes what others write otherwise.

    Attributes:
        quote: stands around a name.
        member: a list holds a value, of ``{name}`` and ``{value}``.
        substring: a string contains another, of the same.
    """

    quote: str
    member: str
    substring: str


DATAFUSION = Dialect("`", "array_has({name}, {value})", "contains({name}, {value})")
POSTGRES = Dialect('"', "{value} = ANY({name})", "strpos({name}, {value}) > 0")


def to_sql(tree: Filter, fields: Mapping[str, FieldType], dialect: Dialect = DATAFUSION) -> str:
    """The filter as an SQL predicate; names and values are quoted here only."""
    match tree:
        case And(parts):
            return _join(" AND ", parts, fields, dialect) if parts else "TRUE"
        case Or(parts):
            return _join(" OR ", parts, fields, dialect) if parts else "FALSE"
        case Not(part):
            return f"NOT ({to_sql(part, fields, dialect)})"
        case IsNull(field):
            return f"{_name(field, dialect)} IS NULL"
    name = _name(tree.field, dialect)
    match tree:
        case Compare(_, op, value):
            test = f"{name} {'=' if op == '==' else op} {_literal(value)}"
        case In(_, values):
            # SQL has no empty list.
            test = f"{name} IN ({', '.join(map(_literal, values))})" if values else "FALSE"
        case Like(_, pattern):
            test = rf"{name} LIKE {_literal(_sql_pattern(pattern))} ESCAPE '\'"
        case Contains(_, value) if fields[tree.field] == "list[str]":
            test = dialect.member.format(name=name, value=_literal(value))
        case Contains(_, value):
            test = dialect.substring.format(name=name, value=_literal(value))
    # IS NOT NULL keeps the logic two-valued below a NOT.
    return f"({name} IS NOT NULL AND {test})"


# --- the checked meaning of a tree ---------------------------------------------------------------

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ORDERED = ("str", "int", "float")
_INT64 = 2**63


def _check(tree: Filter, fields: Mapping[str, FieldType]) -> None:
    if isinstance(tree, And | Or):
        for part in tree.parts:
            _check(part, fields)
        return
    if isinstance(tree, Not):
        _check(tree.part, fields)
        return
    kind = fields.get(tree.field)
    if kind is None:
        close = get_close_matches(tree.field, fields, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            "filter",
            f"unknown field {tree.field!r}",
            f"{hint}the fields are {', '.join(sorted(fields))}",
        )
    match tree:
        case Compare(field, op, value):
            if kind == "list[str]":
                _type_error(field, kind, f"{op} does not apply", "use 'contains'")
            if op != "==" and kind not in _ORDERED:
                _type_error(field, kind, f"{op} does not apply", "use ==, != or in")
            _check_value(field, kind, value)
        case In(field, values):
            if kind == "list[str]":
                _type_error(field, kind, "'in' does not apply", "use 'contains'")
            for value in values:
                _check_value(field, kind, value)
        case Like(field, _) if kind != "str":
            _type_error(field, kind, "'like' does not apply", "it is for text fields")
        case Contains(field, _) if kind not in ("str", "list[str]"):
            _type_error(field, kind, "'contains' does not apply", "it is for text and lists")


def _check_value(field: str, kind: FieldType, value: Scalar) -> None:
    fits = type(value) is {"str": str, "bool": bool, "int": int, "float": float}[kind]
    if not fits and not (kind == "float" and type(value) is int):
        _type_error(field, kind, f"cannot be compared with {value!r}", "compare like with like")
    if isinstance(value, int | float) and not -_INT64 <= value < _INT64:
        raise InputError("filter", f"{value!r} is out of range for field {field!r}")


def _type_error(field: str, kind: FieldType, problem: str, hint: str) -> NoReturn:
    raise InputError("filter", f"field {field!r} is {kind}: {problem}", hint)


@lru_cache(maxsize=64)
def _glob(pattern: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(char) or re.escape(char) for char in pattern), re.DOTALL)


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _join(
    word: str, parts: Sequence[Filter], fields: Mapping[str, FieldType], dialect: Dialect
) -> str:
    return word.join(f"({to_sql(part, fields, dialect)})" for part in parts)


def _name(field: str, dialect: Dialect) -> str:
    # Field names are checked when a field is made; this guards a tree that skipped the check.
    if not _IDENTIFIER.fullmatch(field):
        raise InputError("filter", f"{field!r} is not a field name")
    return f"{dialect.quote}{field}{dialect.quote}"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _sql_pattern(pattern: str) -> str:
    swap = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
    return "".join(swap.get(char, char) for char in pattern)

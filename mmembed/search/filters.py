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

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeAlias, cast

from mmembed.errors import InputError

__all__ = [
    "And",
    "Compare",
    "Contains",
    "FieldType",
    "Filter",
    "FilterLike",
    "In",
    "IsNull",
    "Like",
    "Not",
    "Or",
    "Scalar",
    "compile_filter",
    "matches",
    "parse_filter",
    "to_sql",
]

Scalar: TypeAlias = str | int | float | bool
FieldType: TypeAlias = Literal["str", "int", "float", "bool", "list[str]"]
Operator: TypeAlias = Literal["==", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Compare:
    field: str
    op: Operator
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
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
    field: str


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


Filter: TypeAlias = Compare | In | Like | Contains | IsNull | Not | And | Or
FilterLike: TypeAlias = "str | Mapping[str, Any] | Filter"


def compile_filter(value: FilterLike | None, fields: Mapping[str, FieldType]) -> Filter | None:
    """Parse a filter and check it against the fields of a store.

    Raises:
        InputError: the filter cannot be read, names an unknown field, or compares a field with a
            value of another type.
    """
    if value is None:
        return None
    tree = parse_filter(value)
    _check(tree, fields)
    return tree


def parse_filter(value: FilterLike) -> Filter:
    """Read a filter in any of its forms; an empty dict matches everything.

    Raises:
        InputError: the filter cannot be read; the message points at the place.
    """
    if isinstance(value, str):
        return _Parser(value).parse()
    if isinstance(value, Mapping):
        return _from_mapping(value)
    return value


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
            return bool(_COMPARE[op](value, operand))
        case In(_, values):
            return value in values
        case Like(_, pattern):
            return _glob(pattern).fullmatch(value) is not None
        case Contains(_, needle):
            return needle in value


def to_sql(tree: Filter, fields: Mapping[str, FieldType]) -> str:
    """The filter as a LanceDB (DataFusion) predicate; names and values are quoted here only."""
    match tree:
        case And(parts):
            return _join(" AND ", parts, fields) if parts else "TRUE"
        case Or(parts):
            return _join(" OR ", parts, fields) if parts else "FALSE"
        case Not(part):
            return f"NOT ({to_sql(part, fields)})"
        case IsNull(field):
            return f"{_name(field)} IS NULL"
    name = _name(tree.field)
    match tree:
        case Compare(_, op, value):
            test = f"{name} {'=' if op == '==' else op} {_literal(value)}"
        case In(_, values):
            # SQL has no empty list.
            test = f"{name} IN ({', '.join(map(_literal, values))})" if values else "FALSE"
        case Like(_, pattern):
            test = rf"{name} LIKE {_literal(_sql_pattern(pattern))} ESCAPE '\'"
        case Contains(_, value) if fields[tree.field] == "list[str]":
            test = f"array_has({name}, {_literal(value)})"
        case Contains(_, value):
            test = f"contains({name}, {_literal(value)})"
    # IS NOT NULL keeps the logic two-valued below a NOT.
    return f"({name} IS NOT NULL AND {test})"


# --- the checked meaning of a tree ---------------------------------------------------------------

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
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
    if kind == "bool" or isinstance(value, bool):
        fits = kind == "bool" and isinstance(value, bool)
    elif isinstance(value, str):
        fits = kind in ("str", "list[str]")
    else:
        fits = kind in ("int", "float")
        if not math.isfinite(value) or not -_INT64 <= value < _INT64:
            raise InputError("filter", f"{value!r} is out of range for field {field!r}")
    if not fits:
        _type_error(field, kind, f"cannot be compared with {value!r}", "compare like with like")


def _type_error(field: str, kind: FieldType, problem: str, hint: str) -> NoReturn:
    raise InputError("filter", f"field {field!r} is {kind}: {problem}", hint)


@lru_cache(maxsize=64)
def _glob(pattern: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(char) or re.escape(char) for char in pattern), re.DOTALL)


def _join(word: str, parts: Sequence[Filter], fields: Mapping[str, FieldType]) -> str:
    return word.join(f"({to_sql(part, fields)})" for part in parts)


def _name(field: str) -> str:
    # Field names are checked when a field is made; this guards a tree that skipped the check.
    if not _IDENTIFIER.fullmatch(field):
        raise InputError("filter", f"{field!r} is not a field name")
    return f"`{field}`"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _sql_pattern(pattern: str) -> str:
    swap = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
    return "".join(swap.get(char, char) for char in pattern)


# --- the dict form -------------------------------------------------------------------------------


def _from_mapping(value: Mapping[str, Any]) -> Filter:
    parts: list[Filter] = []
    for field, wanted in value.items():
        if not isinstance(wanted, Mapping):
            parts.append(_equals(field, wanted))
            continue
        parts.extend(_leaf(field, op, operand) for op, operand in wanted.items())
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _equals(field: str, wanted: Any) -> Filter:
    if wanted is None:
        return IsNull(field)
    if isinstance(wanted, list | tuple | set | frozenset):
        return In(field, tuple(_scalar(field, each) for each in wanted))
    return Compare(field, "==", _scalar(field, wanted))


def _leaf(field: str, op: Any, operand: Any) -> Filter:
    if op in ("==", "in"):
        return _equals(field, operand)
    if op in ("!=", "not in"):
        return Not(_equals(field, operand))
    if op in ("like", "contains"):
        if not isinstance(operand, str):
            raise InputError("filter", f"{op!r} on {field!r} needs a str, not {operand!r}")
        return Like(field, operand) if op == "like" else Contains(field, operand)
    if op in _COMPARE:
        return Compare(field, cast(Operator, op), _scalar(field, operand))
    known = [*_COMPARE, "!=", "in", "not in", "like", "contains"]
    raise InputError("filter", f"unknown operator {op!r}", f"the operators are {', '.join(known)}")


def _scalar(field: str, value: Any) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise InputError("filter", f"{field!r} cannot be compared with a {type(value).__name__}")
    return value


# --- the text form -------------------------------------------------------------------------------

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol>==|!=|<=|>=|<|>|=|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "like", "contains", "is", "null", "true", "false"})
_MAX_DEPTH = 50  # parentheses and nots; far from Python's recursion limit


class _Parser:
    """Recursive descent: or < and < not < comparison or parenthesis."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.at = 0
        self.depth = 0

    def parse(self) -> Filter:
        tree = self._or()
        if self._peek() != ("end", ""):
            self._fail("expected 'and', 'or' or the end")
        return tree

    def _tokens(self) -> Any:
        start, end = 0, len(self.text.rstrip())
        while start < end:
            found = _TOKEN.match(self.text, start)
            if found is None:
                raise InputError(
                    f"filter {self.text!r}",
                    f"cannot read {self.text[start:].lstrip()[:20]!r}",
                    "text values need quotes",
                )
            kind = str(found.lastgroup)
            word = found.group(kind)
            if kind == "word" and word.lower() in _KEYWORDS:
                kind, word = "keyword", word.lower()
            yield kind, word, found.start(kind)
            start = found.end()
        yield "end", "", len(self.text)

    def _peek(self) -> tuple[str, str]:
        kind, word, _ = self.tokens[self.at]
        return kind, word

    def _take(self, *words: str) -> str | None:
        """The next token if it is one of these keywords or symbols."""
        kind, word = self._peek()
        if kind in ("keyword", "symbol") and word in words:
            self.at += 1
            return word
        return None

    def _need(self, word: str) -> None:
        if self._take(word) is None:
            self._fail(f"expected {word!r}")

    def _fail(self, problem: str) -> NoReturn:
        place = self.tokens[self.at][2]
        found = self.text[place:].strip()[:20] or "the end"
        raise InputError(
            f"filter {self.text!r}",
            f"{problem} at character {place + 1}, found {found!r}",
            """write e.g. modality == "image" and year >= 2020""",
        )

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Filter:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self._fail(f"nested deeper than {_MAX_DEPTH}")
        try:
            if self._take("not"):
                return Not(self._not())
            if self._take("("):
                tree = self._or()
                self._need(")")
                return tree
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Filter:
        kind, field = self._peek()
        if kind != "word":
            self._fail("expected a field name")
        self.at += 1
        if self._take("is"):
            negated = self._take("not") is not None
            self._need("null")
            return Not(IsNull(field)) if negated else IsNull(field)
        negated = self._take("not") is not None
        word = self._take("in", "like", "contains")
        if word is None and negated:
            self._fail("expected 'in', 'like' or 'contains'")
        if word is None:
            word = self._take("==", "=", "!=", "<", "<=", ">", ">=")
        if word is None:
            self._fail("expected a comparison")
        operand = self._list() if word == "in" else self._value()
        tree = _leaf(field, "==" if word == "=" else word, operand)
        return Not(tree) if negated else tree

    def _list(self) -> list[Scalar]:
        closing = {"[": "]", "(": ")"}.get(self._take("[", "(") or "")
        if closing is None:
            self._fail("expected a list such as [1, 2]")
        values: list[Scalar] = []
        while self._take(closing) is None:
            values.append(self._value())
            if self._take(",") is None:
                self._need(closing)
                break
        return values

    def _value(self) -> Scalar:
        kind, word = self._peek()
        if kind == "string":
            value: Scalar = re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
        elif kind == "number":
            value = float(word) if set(word) & set(".eE") else int(word)
        elif kind == "keyword" and word in ("true", "false"):
            value = word == "true"
        else:
            self._fail("expected a quoted text, a number, true or false")
        self.at += 1
        return value

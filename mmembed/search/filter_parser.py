"""Reading filters: the text form by recursive descent, and the dict form.

:mod:`mmembed.search.filters` says what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from mmembed.errors import InputError
from mmembed.search.filters import (
    OPERATORS,
    And,
    Compare,
    Contains,
    FieldType,
    Filter,
    FilterLike,
    In,
    IsNull,
    Like,
    Not,
    Operator,
    Or,
    Scalar,
    check_filter,
)

__all__ = ["compile_filter", "parse_filter"]


def compile_filter(value: FilterLike | None, fields: Mapping[str, FieldType]) -> Filter | None:
    """Parse a filter and check it against the fields of a store.

    Raises:
        InputError: the filter cannot be read, names an unknown field, or compares a field with a
            value of another type.
    """
    if value is None:
        return None
    tree = parse_filter(value)
    check_filter(tree, fields)
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
    if op in OPERATORS:
        return Compare(field, cast(Operator, op), _scalar(field, operand))
    known = [*OPERATORS, "!=", "in", "not in", "like", "contains"]
    raise InputError("filter", f"unknown operator {op!r}", f"the operators are {', '.join(known)}")


def _scalar(field: str, value: Any) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise InputError("filter", f"{field!r} cannot be compared with a {type(value).__name__}")
    return value


# --- the text form -------------------------------------------------------------------------------

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

    def _tokens(self) -> Iterator[tuple[str, str, int]]:
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
            yield kind, word, found.start(str(found.lastgroup))
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

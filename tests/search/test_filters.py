"""The filter language: parsing, types, meaning."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.search.filter_parser import compile_filter, parse_filter
from mmembed.search.filters import (
    And,
    Compare,
    Contains,
    FieldType,
    In,
    IsNull,
    Like,
    Not,
    Or,
    matches,
    to_sql,
)

FIELDS: dict[str, FieldType] = {
    "modality": "str",
    "path": "str",
    "year": "int",
    "score": "float",
    "draft": "bool",
    "tags": "list[str]",
}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('modality == "image"', Compare("modality", "==", "image")),
        ("modality = 'image'", Compare("modality", "==", "image")),
        ("year >= 2020", Compare("year", ">=", 2020)),
        ("year != -3", Not(Compare("year", "==", -3))),
        ("score < 1.5e-3", Compare("score", "<", 0.0015)),
        ("draft == true", Compare("draft", "==", True)),
        ('path like "holiday/*"', Like("path", "holiday/*")),
        ("tags contains 'a'", Contains("tags", "a")),
        ("tags not contains 'a'", Not(Contains("tags", "a"))),
        ("year in [1, 2]", In("year", (1, 2))),
        ("year not in (1, 2,)", Not(In("year", (1, 2)))),
        ("year in []", In("year", ())),
        ("year is null", IsNull("year")),
        ("YEAR IS NOT NULL", Not(IsNull("YEAR"))),
        (
            "year == 1 or year == 2 and not draft == true",
            Or(
                (
                    Compare("year", "==", 1),
                    And((Compare("year", "==", 2), Not(Compare("draft", "==", True)))),
                )
            ),
        ),
        (
            "(year == 1 or year == 2) and score > 0",
            And(
                (
                    Or((Compare("year", "==", 1), Compare("year", "==", 2))),
                    Compare("score", ">", 0),
                )
            ),
        ),
        (r'path == "a\"b\\c"', Compare("path", "==", 'a"b\\c')),
    ],
)
def test_text_form(text: str, tree: Any) -> None:
    assert parse_filter(text) == tree


def test_dict_form() -> None:
    value = {
        "modality": "image",
        "year": {">=": 2020, "!=": 2022},
        "path": ["a", "b"],
        "draft": None,
    }
    assert parse_filter(value) == And(
        (
            Compare("modality", "==", "image"),
            Compare("year", ">=", 2020),
            Not(Compare("year", "==", 2022)),
            In("path", ("a", "b")),
            IsNull("draft"),
        )
    )
    assert parse_filter({"tags": {"contains": "x"}}) == Contains("tags", "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "year",
        "year ==",
        "year == 1 and",
        "(year == 1",
        "year == 1)",
        "year == 1; DROP TABLE items",
        "year == 1 -- comment",
        "year == abc",
        "year like 3",
        "year in 3",
        "year in [1 2]",
        "not",
        'modality == "open',
        "year == 12abc",
        "1 == 1",
        "year not == 3",
        "modality == null",
        "(" * 100 + "year == 1" + ")" * 100,
        "not " * 100 + "year == 1",
    ],
)
def test_what_is_not_a_filter_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="filter"):
        parse_filter(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("yeer == 1", "did you mean 'year'"),
        ("year == 'x'", "year.*int"),
        ("modality == 3", "modality.*str"),
        ("draft == 1", "draft.*bool"),
        ("year == true", "year.*int"),
        ("year > 2020.5", "year.*int"),
        ("draft > false", "draft.*bool"),
        ("tags == 'a'", "contains"),
        ("tags in ['a']", "contains"),
        ("year like '2*'", "like"),
        ("year contains '2'", "contains"),
        ("year == 99999999999999999999", "out of range"),
        ("score < 1e999", "out of range"),
        ("not (year == 'x')", "year.*int"),
        ({"year": b"x"}, "bytes"),
        ({"year": {"~": 1}}, "operator"),
        ({"path": {"like": 1}}, "like"),
    ],
)
def test_fields_and_types_are_checked(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile_filter(value, FIELDS)


def test_no_filter() -> None:
    assert compile_filter(None, FIELDS) is None


ROW = {"modality": "image", "path": "holiday/a.b.jpg", "year": 2020, "tags": ["sea", "sun"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 2020", True),
        ("year > 2020", False),
        ("path like 'holiday/*'", True),
        ("path like 'holiday'", False),
        ("path like '*.b.???'", True),
        ("path like 'holidayXa*'", False),
        ("path contains 'day/'", True),
        ("tags contains 'sea'", True),
        ("tags contains 'se'", False),
        ("score > 0", False),
        ("not score > 0", True),
        ("score != 3", True),
        ("score is null", True),
        ("draft is not null", False),
        ("year in []", False),
        ("year not in [2020]", False),
    ],
)
def test_meaning(text: str, expected: bool) -> None:
    tree = compile_filter(text, FIELDS)
    assert tree is not None
    assert matches(tree, ROW) is expected


def test_an_empty_dict_matches_everything() -> None:
    assert matches(parse_filter({}), ROW)


@given(st.text())
def test_any_text_is_one_quoted_literal(value: str) -> None:
    sql = to_sql(Compare("path", "==", value), FIELDS)
    literal = sql.removeprefix("(`path` IS NOT NULL AND `path` = ").removesuffix(")")
    assert literal[0] == literal[-1] == "'"
    # Inside, quotes come only in pairs: nothing can end the literal early.
    assert "'" not in literal[1:-1].replace("''", "")


def test_a_tree_that_skipped_the_check_cannot_smuggle_a_name() -> None:
    with pytest.raises(InputError, match="not a field name"):
        to_sql(Compare("a` = 1 OR `b", "==", 1), FIELDS)


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_filter(text)

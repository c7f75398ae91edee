"""Rows to examples: which texts belong together, and what is wrong with the rows that have none."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.sources import Place, RawRow, raw_rows

__all__ = [
    "BadRowError",
    "Example",
    "Report",
    "examples_of",
    "read_rows",
    "text_hash",
    "with_columns",
]

_log = logging.getLogger(__name__)
_SHOWN = 5
_Example = TypeVar("_Example")


@dataclass(frozen=True, slots=True)
class Example:
    """One query and what belongs to it.

    Attributes:
        teacher: scores of the positive and of each negative; empty where the source has none.
        entities: numbers of the query's entity and of hard ones; empty where the source has none.
    """

    place: Place
    query: str
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    label: float | None = None
    teacher: tuple[float, ...] = ()
    instruction: str | None = None
    entities: tuple[int, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Query, positive if any, negatives."""
        return [self.query, *([] if self.positive is None else [self.positive]), *self.negatives]


@dataclass(slots=True)
class Report:
    """What became of a source's rows.

    Attributes:
        problems: how many rows had each problem.
        first: messages of the first few.
    """

    source: str
    kept: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, problem: str, place: Place, detail: str) -> None:
        """Count a row that is left out."""
        self.problems[problem] += 1
        if len(self.first) < _SHOWN:
            self.first.append(f"{place}: {detail}")

    def log(self) -> None:
        """Tell of rows that were left out."""
        if self.problems:
            counts = ", ".join(f"{n} {what}" for what, n in self.problems.most_common())
            shown = "; ".join(self.first)
            _log.warning(
                "%s: %d rows kept, left out: %s (%s)", self.source, self.kept, counts, shown
            )


class BadRowError(Exception):
    """A row's problem: a name to count it under, and the whole story."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


def examples_of(
    source: SourceConfig, report: Report, bad_rows: Literal["raise", "skip"] = "raise"
) -> Iterator[Example]:
    """The examples of a source, in its order.

    Args:
        report: filled along the way; :meth:`Report.log` when done.
        bad_rows: ``skip`` leaves broken rows out, ``raise`` stops at the first.

    Raises:
        InputError: a broken row under ``raise``, named by file and line.
        ConfigError: the first row lacks a column that the source names.
    """
    named = [source.query, source.positive, source.label, source.teacher, source.entities]
    columns = [*named, source.instruction_column, *source.negatives]
    rows = with_columns(raw_rows(source.path), columns)
    return read_rows(rows, partial(_example, source), source.limit, report, bad_rows)


def with_columns(rows: Iterable[RawRow], names: Iterable[str]) -> Iterator[RawRow]:
    """The rows, the first unbroken one of which must have the columns; empty names do not count.

    Raises:
        ConfigError: it lacks one.
    """
    first = True
    for raw in rows:
        if first and not raw.broken:
            first = False
            for name in names:
                if name and name not in raw.fields:
                    known = ", ".join(sorted(raw.fields)) or "none"
                    raise ConfigError(
                        f"{raw.place}: there is no column {name!r} (columns: {known})"
                    )
        yield raw


def read_rows(
    rows: Iterable[RawRow],
    read: Callable[[RawRow], _Example],
    limit: int | None,
    report: Report,
    bad_rows: Literal["raise", "skip"],
) -> Iterator[_Example]:
    """What ``read`` makes of the rows, until there are ``limit``.

    Args:
        read: makes an example of a row that is not broken, or raises :class:`BadRowError`.

    Raises:
        InputError: a bad row under ``raise``, named by file and line.
    """
    for raw in rows:
        if limit is not None and report.kept >= limit:
            return
        try:
            if raw.broken:
                raise BadRowError("broken", raw.broken)
            example = read(raw)
        except BadRowError as bad:
            if bad_rows == "raise":
                hint = "mend the row, or set data.bad_rows: skip"
                raise InputError(str(raw.place), bad.detail, hint) from None
            report.add(bad.problem, raw.place, bad.detail)
            continue
        report.kept += 1
        yield example


def text_hash(text: str) -> int:
    """A signed 64-bit hash of a text without the white space around it."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _example(source: SourceConfig, raw: RawRow) -> Example:
    fields = raw.fields
    query = _text(fields, source.query)
    positive = _text(fields, source.positive) if source.positive else None
    negatives = tuple(text for name in source.negatives for text in _texts(fields, name))
    if source.negatives and not negatives:
        raise BadRowError("without negatives", f"no negative in {', '.join(source.negatives)}")
    label = _number(fields.get(source.label), source.label) if source.label else None
    teacher: tuple[float, ...] = ()
    if source.teacher:
        scores = fields.get(source.teacher)
        if not isinstance(scores, (list, tuple)) or len(scores) != 1 + len(negatives):
            wanted = f"{1 + len(negatives)} scores, of the positive and its negatives"
            raise BadRowError("without teacher scores", f"{source.teacher!r} must list {wanted}")
        teacher = tuple(_number(score, source.teacher) for score in scores)
    entities = _numbers(fields, source.entities) if source.entities else ()
    instruction = source.instruction or None
    if source.instruction_column:
        instruction = _text(fields, source.instruction_column)
    return Example(raw.place, query, positive, negatives, label, teacher, instruction, entities)


def _numbers(fields: dict[str, Any], name: str) -> tuple[int, ...]:
    """Numbers of entities: whole, and not negative."""
    value = fields.get(name)
    items = value if isinstance(value, (list, tuple)) else [value]
    if not items or not all(type(item) is int and item >= 0 for item in items):
        raise BadRowError("without entities", f"{name!r} must list numbers of entities, from 0")
    return tuple(items)


def _text(fields: dict[str, Any], name: str) -> str:
    """A text; of a list of texts, as of several positives, the first."""
    value = fields.get(name)
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if value is None:
        raise BadRowError("one-sided", f"has no {name!r}")
    if not isinstance(value, str):
        raise BadRowError("not text", f"{name!r} is a {type(value).__name__}, not a text")
    if not value.strip():
        raise BadRowError("empty", f"{name!r} is empty")
    return value


def _texts(fields: dict[str, Any], name: str) -> list[str]:
    value = fields.get(name)
    items = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [_text({name: item}, name) for item in items]


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRowError("not a number", f"{name!r} is {value!r}, not a number")
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise BadRowError("not a number", f"{name!r} is {value!r}, not a number")
    return found

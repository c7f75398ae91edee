"""What a report is made of, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Block", "Chart", "Failure", "Gallery", "Paragraph", "Report", "Section", "Table"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A line of plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, the first of each its name."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing in SVG, with the name of its file and what it shows."""

    name: str
    svg: str
    about: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A query that failed: items are ``{"text", "image", "video", "document"}``."""

    query: Mapping[str, str]
    wanted: Mapping[str, str]
    rank: int
    found: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Failures of a task."""

    title: str
    failures: Sequence[Failure]


Block: TypeAlias = Paragraph | Table | Chart | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Report:
    """A title and its sections."""

    title: str
    sections: Sequence[Section]

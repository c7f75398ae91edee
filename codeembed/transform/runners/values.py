"""Arguments: values of every kind where a language declares no types, else values of the types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

__all__ = [
    "Many",
    "Scalar",
    "Shape",
    "Types",
    "integer",
    "letter",
    "natural",
    "quoted",
    "real",
    "standard_input",
    "truth",
    "typed_inputs",
    "untyped_inputs",
    "word",
]


def integer(random: Random) -> int:
    """A small integer of either sign."""
    return random.randint(-3, 30)


def natural(random: Random) -> int:
    """A small integer from 1."""
    return random.randint(1, 6)


def real(random: Random) -> float:
    """A binary fraction, exact in every format."""
    return random.choice((0.5, 2.25, -1.5, 10.0))


def truth(random: Random) -> bool:
    """True or false."""
    return random.random() < 0.5


def letter(random: Random) -> str:
    """One character."""
    return random.choice("abcAB1 x")


def word(random: Random) -> str:
    """Up to eight characters of few kinds, so that they repeat."""
    return "".join(random.choice("abcAB1 ()x") for _ in range(random.randint(0, 8)))


def standard_input(random: Random) -> str:
    """What programs of exercises read: a count, then lines of numbers, or of words."""
    count = random.randint(1, 4)
    lines = [str(count)]
    numbers = random.random() < 0.75
    for _ in range(4 * count):
        items = [str(random.randint(1, 20)) if numbers else word(random) for _ in range(count)]
        lines.append(" ".join(items))
    return "\n".join([*lines, "0 0", ""])


def _integers(random: Random) -> list[int]:
    return [random.randint(-5, 12) for _ in range(random.randint(0, 6))]


def _words(random: Random) -> list[str]:
    return [word(random) for _ in range(random.randint(0, 4))]


def _matrix(random: Random) -> list[list[int]]:
    width = random.randint(1, 3)
    return [[random.randint(0, 9) for _ in range(width)] for _ in range(random.randint(1, 3))]


def untyped_inputs(arity: int, count: int, seed: int) -> list[str]:
    """Argument lists as JSON arrays: every kind of value first, then mixtures.

    Deterministic by ``seed``. Kinds repeat over all arguments first, since most functions take
    arguments of one kind.
    """
    random = Random(f"{seed}/inputs")
    kinds = [integer, _integers, word, natural, _words, _matrix, real]
    rows: list[list[Any]] = [[kind(random) for _ in range(arity)] for kind in kinds]
    while len(rows) < count:
        rows.append([random.choice(kinds)(random) for _ in range(arity)])
    return [json.dumps(row) for row in rows[:count]]


def quoted(value: str) -> str:
    """A string as most languages write it; :func:`word` has no character that needs more."""
    return json.dumps(value)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without items: how a value is made, and how the language writes it."""

    make: Callable[[Random], Any]
    write: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Many:
    """A type with items.

    Attributes:
        matches: A pattern of the written type; its one group is the type of the items.
        template: How a value is written: ``{type}`` and ``{item}`` are written types,
            ``{items}`` the values, divided by commas, ``{count}`` how many.
    """

    matches: str
    template: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A written type that is known: a scalar, or items of another."""

    written: str
    scalar: Scalar = field(default_factory=lambda: Scalar(integer))
    item: Shape | None = None
    template: str = ""

    def make(self, random: Random, size: int) -> Any:
        """A value, with that many items at every level."""
        if self.item is None:
            return self.scalar.make(random)
        items = [self.item.make(random, size) for _ in range(size)]
        # Searches want their items in order.
        return sorted(items) if random.random() < 0.5 else items

    def write(self, value: Any) -> str:
        """A value as the language writes it."""
        if self.item is None:
            return self.scalar.write(value)
        items = ", ".join(self.item.write(each) for each in value)
        names = {"type": self.written, "item": self.item.written, "count": len(value)}
        return self.template.format(items=items, **names)


@dataclass(frozen=True, slots=True)
class Types:
    """The types of a language for which arguments are made."""

    scalars: Mapping[str, Scalar]
    lists: tuple[Many, ...] = ()

    def shape(self, written: str) -> Shape | None:
        """What is known of a written type; None if it is in no table."""
        if written in self.scalars:
            return Shape(written, self.scalars[written])
        for many in self.lists:
            found = re.fullmatch(many.matches, written)
            item = self.shape(found.group(1)) if found else None
            if item is not None:
                return Shape(written, item=item, template=many.template)
        return None

    def shapes(self, written: Sequence[str]) -> list[Shape] | None:
        """The shapes of all, or None."""
        found = [self.shape(each) for each in written]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else None


def typed_inputs(shapes: Sequence[Shape], count: int, seed: int) -> list[str]:
    """Argument lists of these types as JSON arrays, determined by ``seed``.

    Lists of one input have one length, and integers beside them are often that length: it is what
    such arguments mostly are.
    """
    random = Random(f"{seed}/inputs")
    lists = any(each.item is not None for each in shapes)
    rows = []
    for _ in range(count):
        size = random.randint(1, 6)
        row = []
        for shape in shapes:
            value = shape.make(random, size)
            if lists and shape.item is None and shape.scalar.make is integer:
                value = random.choice((size, size, size, size - 1, value))
            row.append(value)
        rows.append(json.dumps(row))
    return rows

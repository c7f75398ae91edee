"""What an operation is: a scout that finds sites, and an edit of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from codeembed.transform.edit import Edit, Replacement
from codeembed.transform.tree import Code, Node

__all__ = [
    "Change",
    "Operation",
    "RefusedError",
    "Site",
    "Tally",
    "changes",
    "replaced",
    "transform",
]


class RefusedError(Exception):
    """An operation is not provably valid here; the message is a short, countable reason."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where an operation may apply.

    Attributes:
        node: The node that it is about; offsets count in :attr:`Code.source`.
        name: The variable that it is about, or ``""``.
    """

    node: Node
    name: str = ""


class Operation(Protocol):
    """One way to rewrite code. Stateless, so that one object serves every source."""

    @property
    def name(self) -> str:
        """Lower case with dashes, as reports show it."""
        ...

    def scout(self, code: Code) -> Iterable[Site]:
        """Places that look right, valid or not, in the order of the source."""
        ...

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """The replacements in :attr:`Code.source` for one site.

        Raises:
            RefusedError: it is not provably valid here.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An edit of :attr:`Code.text`, and what made it."""

    operation: str
    start: int
    end: int
    edit: Edit


@dataclass(slots=True)
class Tally:
    """How often an operation found a site, edited it, and refused, by reason."""

    sites: int = 0
    edits: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


def replaced(code: Code, node: Node, new: bytes) -> Replacement:
    """The replacement of a whole node."""
    return Replacement(node.start, code.bytes_of(node), new)


def changes(
    code: Code, operation: Operation, seed: int = 0, tally: Tally | None = None
) -> list[Change]:
    """Every edit that an operation can make, each alone, in the order of the source.

    An edit that would not parse is refused with the reason ``does-not-parse``.

    Args:
        code: What to rewrite.
        operation: How.
        seed: Chooses names, snippets and places; the same seed makes the same edits.
        tally: Where to count.
    """
    counted = tally if tally is not None else Tally()
    found: list[Change] = []
    for number, site in enumerate(operation.scout(code)):
        counted.sites += 1
        random = Random(f"{seed}/{operation.name}/{number}")
        try:
            edit = _edit(code, operation, site, random)
        except RefusedError as refusal:
            counted.refusals[str(refusal)] += 1
            continue
        counted.edits += 1
        start, end = site.node.start - code.offset, site.node.end - code.offset
        found.append(Change(operation.name, start, end, edit))
    return found


def transform(code: Code, operation: Operation, seed: int = 0) -> Change | None:
    """One edit of an operation at a site chosen by the seed; None if every site refuses."""
    sites = list(enumerate(operation.scout(code)))
    Random(f"{seed}/{operation.name}").shuffle(sites)
    for number, site in sites:
        random = Random(f"{seed}/{operation.name}/{number}")
        try:
            edit = _edit(code, operation, site, random)
        except RefusedError:
            continue
        start, end = site.node.start - code.offset, site.node.end - code.offset
        return Change(operation.name, start, end, edit)
    return None


def _edit(code: Code, operation: Operation, site: Site, random: Random) -> Edit:
    edit = Edit.of(operation.rewrite(code, site, random)).shifted(-code.offset)
    if not edit:
        raise RefusedError("nothing-to-change")
    if edit.replacements[0].start < 0 or edit.replacements[-1].end > len(code.text):
        raise RefusedError("outside-the-fragment")
    if code.again(edit.apply(code.text)).has_error:
        raise RefusedError("does-not-parse")
    return edit

"""Reversible edits of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from mmembed.errors import InputError

__all__ = ["Edit", "Replacement"]


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """``old`` at byte ``start`` becomes ``new``."""

    start: int
    old: bytes
    new: bytes

    @property
    def end(self) -> int:
        """Byte after the replaced ones."""
        return self.start + len(self.old)


@dataclass(frozen=True, slots=True)
class Edit:
    """Replacements in the order of the source, none of which overlap.

    Attributes:
        replacements: Sorted by start.
    """

    replacements: tuple[Replacement, ...]

    @classmethod
    def of(cls, replacements: Iterable[Replacement]) -> Edit:
        """Sort replacements and leave out those that change nothing.

        Raises:
            InputError: two of them overlap, or insert at the same place.
        """
        ordered = tuple(sorted(each for each in replacements if each.old != each.new))
        for left, right in pairwise(ordered):
            if right.start < left.end or right.start == left.start:
                raise InputError(f"byte {right.start}", "edits overlap", "apply them one by one")
        return cls(ordered)

    def apply(self, source: bytes) -> bytes:
        """The edited bytes.

        Raises:
            InputError: the source is not the one that the edit was made for.
        """
        parts: list[bytes] = []
        position = 0
        for each in self.replacements:
            if source[each.start : each.end] != each.old:
                raise InputError(
                    f"byte {each.start}",
                    f"does not hold {each.old[:60]!r}",
                    "apply an edit to the source that it was made for",
                )
            parts += [source[position : each.start], each.new]
            position = each.end
        return b"".join([*parts, source[position:]])

    def invert(self) -> Edit:
        """The edit that takes the edited bytes back to the source, exactly."""
        inverse: list[Replacement] = []
        shift = 0
        for each in self.replacements:
            inverse.append(Replacement(each.start + shift, each.new, each.old))
            shift += len(each.new) - len(each.old)
        return Edit(tuple(inverse))

    def shifted(self, by: int) -> Edit:
        """The same edit of a source that begins ``by`` bytes later."""
        return Edit(tuple(Replacement(r.start + by, r.old, r.new) for r in self.replacements))

    def __bool__(self) -> bool:
        return bool(self.replacements)

"""What runs the functions of a language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from codeembed.transform.tree import Code

__all__ = ["TOO_LONG", "UNDEFINED", "Runner", "Target"]

TOO_LONG = "too long"
"""The outcome of a call that did not end, or was not tried after others that did not."""

UNDEFINED = "undefined"
"""The outcome of every version on an input for which the language leaves the source's open."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function that can be called.

    Attributes:
        name: As written.
        arity: How many arguments it takes.
        types: The written types of its arguments, where the language declares them.
        result: The written type of what it returns, where the language declares it.
        owner: The class that holds it, or ``""``.
    """

    name: str
    arity: int
    types: tuple[str, ...] = ()
    result: str = ""
    owner: str = ""


class Runner(Protocol):
    """How the functions of one language are found, given arguments, and called."""

    @property
    def available(self) -> bool:
        """Whether the programs that it needs are installed."""
        ...

    def target(self, code: Code) -> Target | None:
        """The last function of a source that can be called; None if there is none."""
        ...

    def inputs(self, target: Target, count: int, seed: int) -> list[str]:
        """Argument lists for it as JSON arrays, determined by ``seed``."""
        ...

    def run(
        self,
        texts: Sequence[str],
        target: Target,
        inputs: Sequence[str],
        *,
        milliseconds: int = 100,
    ) -> list[list[str] | None]:
        """Call one function of several versions of a source on the same inputs.

        Args:
            texts: Versions, the source first.
            target: The function that every version has.
            inputs: Argument lists as JSON arrays.
            milliseconds: Of processor time that a call may take, and four times as much loading:
                wall time would depend on what else runs.

        Returns:
            For each version, one outcome an input as text: the returned value, the arguments
            afterwards and what was printed, divided by ``" | "``; or the type of the error or
            how the process ended, and what was printed; or :data:`TOO_LONG`, or
            :data:`UNDEFINED`. What follows a call or two that took too long, or took the source
            too long, is not tried and is :data:`TOO_LONG` too. None for a version that does not
            compile or load, or that the limits cut off.
        """
        ...

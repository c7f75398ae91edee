"""Compiled languages: one program holds every version and calls them by their declared types.

The program reads which calls it is to make and tells a line for each. Where it ends before the last
one, the call that it was at has ended it: that is this call's outcome, and the rest goes on in a
new process.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from codeembed.transform.runners.runner import TOO_LONG, Target
from codeembed.transform.runners.values import Shape, Types, typed_inputs
from codeembed.transform.sandbox import Limits, compiles, limited
from codeembed.transform.tree import Code

__all__ = ["Compiled", "Job", "candidate"]

_SECONDS = 10
_SLOW_CALLS = 2
"""Of the source; of a version one is enough, since each costs a process."""

_LATE = 97
"""Exit status of a driver whose call took too long."""

_PRINTED = 500
_TOLD = 1 << 22
# What differs between versions, or runs, that behave alike.
_IDENTITY = re.compile(r"candidate\d+|@[0-9a-f]{2,}\b|\b0x[0-9a-f]{6,}")


def candidate(place: int) -> str:
    """The name of a version's file, package, module or namespace, as compilers' errors show it."""
    return f"candidate{place}"


@dataclass(frozen=True)
class Job:
    """Versions of a source, and the calls of one of their functions.

    Attributes:
        texts: By place; the source is the first.
        target: The function.
        shapes: Of its arguments.
        rows: Their values, for each input.
    """

    texts: Sequence[str]
    target: Target
    shapes: Sequence[Shape]
    rows: Sequence[Sequence[Any]]

    @cached_property
    def cases(self) -> list[list[str]]:
        """The arguments of each input as the language writes them."""
        return [
            [shape.write(value) for shape, value in zip(self.shapes, row, strict=True)]
            for row in self.rows
        ]


class Compiled(ABC):
    """How the functions of a compiled language are found, compiled and called.

    Attributes:
        programs: What must be installed.
        driver: File in ``codeembed/transform/drivers``.
        types: For which arguments are made.
        memory: Bytes of address space, or None where an option holds it.
        environment: Variables of the compiler and of the program.
    """

    programs: ClassVar[tuple[str, ...]]
    driver: ClassVar[str]
    types: ClassVar[Types]
    memory: ClassVar[int | None] = None
    environment: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def target(self, code: Code) -> Target | None:
        """The last function whose arguments have known types."""

    @abstractmethod
    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """Name and text of every file to compile, for the versions at those places."""

    @abstractmethod
    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """The command that compiles files, some of which name the others."""

    @abstractmethod
    def program(self) -> Sequence[str]:
        """The command that runs what was compiled."""

    @property
    def available(self) -> bool:
        """Whether the programs are installed."""
        return all(shutil.which(each) for each in self.programs)

    def inputs(self, target: Target, count: int, seed: int) -> list[str]:
        """Values of the declared types."""
        return typed_inputs(self.shapes(target.types) or (), count, seed)

    def shapes(self, types: Sequence[str]) -> list[Shape] | None:
        """What is known of written types; None if one is in no table."""
        return self.types.shapes(types)

    def run(
        self,
        texts: Sequence[str],
        target: Target,
        inputs: Sequence[str],
        *,
        milliseconds: int = 100,
    ) -> list[list[str] | None]:
        """See :meth:`codeembed.transform.runners.runner.Runner.run`."""
        shapes = self.shapes(target.types) or []
        job = Job(texts, target, shapes, [json.loads(each) for each in inputs])
        return self.outcomes(job, milliseconds)

    def outcomes(self, job: Job, milliseconds: int) -> list[list[str] | None]:
        """The outcomes of every version, as :meth:`run` gives them."""
        return self.called(job, milliseconds)

    def called(self, job: Job, milliseconds: int) -> list[list[str] | None]:
        """Compile and call the versions."""
        with tempfile.TemporaryDirectory() as name:
            places = self._compiled(job, Path(name))
            if not places:
                return [None] * len(job.texts)
            calls = _Calls(places, len(job.rows))
            limits = Limits(_SECONDS + len(places), self.memory, self.environment)
            while calls.left:
                told = calls.make([*self.program(), str(milliseconds)], Path(name), limits)
                if not told and calls.broken:
                    return [None] * len(job.texts)
            return [calls.outcomes.get(place) for place in range(len(job.texts))]

    def _compiled(self, job: Job, folder: Path) -> list[int]:
        """The places of the versions that compile; none where the source does not."""
        driver = resources.files("codeembed.transform") / "drivers" / self.driver
        (folder / self.driver).write_bytes(driver.read_bytes())
        places = list(range(len(job.texts)))
        while True:
            paths = []
            for path, text in self.files(job, places):
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8")
                paths.append(path)
            said = compiles(self.compiler(paths), folder, self.environment)
            if said is None:
                return places
            wrong = {int(each) for each in re.findall(r"\bcandidate(\d+)\b", said)}
            left = [place for place in places if place not in wrong]
            if 0 not in left or len(left) == len(places):
                return []
            places = left


class _Calls:
    """Which calls are left, and what came of the others."""

    def __init__(self, places: Sequence[int], inputs: int) -> None:
        self.left = [(place, at) for place in places for at in range(inputs)]
        self.outcomes = {place: [TOO_LONG] * inputs for place in places}
        self._late = dict.fromkeys(places, 0)
        self._silent = 0

    @property
    def broken(self) -> bool:
        """Whether processes end again and again without telling anything."""
        return self._silent > 40

    def make(self, command: Sequence[str], folder: Path, limits: Limits) -> int:
        """Let one process make calls; how many it told of."""
        (folder / "calls").write_text("".join(f"{place} {at}\n" for place, at in self.left))
        told, printed = folder / "told", folder / "printed"
        told.write_bytes(b"")
        status = limited(command, folder, limits, printed)
        output = printed.read_bytes()
        done, before = 0, 0
        for line in told.read_bytes()[:_TOLD].decode("utf-8", "replace").split("\n")[:-1]:
            place, at, end, text = line.split(" ", 3)
            self._note(int(place), int(at), text, output[before : int(end)])
            before = int(end)
            done += 1
        self.left = self.left[done:]
        self._silent = 0 if done else self._silent + 1
        if self.left:
            self._ended(status, output[before:])
        return done

    def _note(self, place: int, at: int, text: str, printed: bytes) -> None:
        shown = printed[:_PRINTED].decode("utf-8", "replace")
        self.outcomes[place][at] = _IDENTITY.sub("<same>", f"{text} | {shown}")

    def _ended(self, status: int | None, printed: bytes) -> None:
        (place, at), self.left = self.left[0], self.left[1:]
        if status not in (None, _LATE, -signal.SIGPROF, -signal.SIGXCPU, -signal.SIGKILL):
            self._note(place, at, f"ended with {status}", printed)
            return
        self._late[place] += 1
        if place == 0:
            # Inputs on which the source takes too long tell nothing of the others.
            self.left = [each for each in self.left if each[1] != at]
        if place == 0 and self._late[place] < _SLOW_CALLS:
            return
        untried = {each[1] for each in self.left if each[0] == place}
        self.left = [
            each
            for each in self.left
            if each[0] != place and not (place == 0 and each[1] in untried)
        ]

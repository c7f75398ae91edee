"""What C and C++ share: reading declarators, and leaving out what the language leaves open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from codeembed.transform.runners.compiled import Compiled, Job, candidate
from codeembed.transform.runners.runner import TOO_LONG, UNDEFINED, Target
from codeembed.transform.tree import Code, Node

__all__ = ["CFamily", "cases", "declared", "table"]

# Variables without a value are 0 in every version and a pattern in the checked one: a source that
# reads one has two outcomes, and a version has the first of them.
_PLAIN = ("-O0", "-ftrivial-auto-var-init=zero")
_SANITIZED = (
    "-O1", "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error",
    "-fno-omit-frame-pointer", "-ftrivial-auto-var-init=pattern",
)  # fmt: skip
_CHECKING = 5
"""How much longer a call may take under the sanitizers."""


def declared(code: Code, parameter: Node) -> str:
    """The type of a parameter: its text without its name and its default value."""
    name = next((n for n in code.below(parameter) if _is_name(n)), None)
    stop = next((n.start for n in parameter.children if n.type == "="), parameter.end)
    start, end = (name.start, name.end) if name else (stop, stop)
    text = code.source[parameter.start : start] + b" " + code.source[end:stop]
    return re.sub(r"\[\s*\d*\s*\]", "[]", text.decode("utf-8", "replace"))


def _is_name(node: Node) -> bool:
    return node.type == "identifier" and "declarator" in node.role


class CFamily(Compiled):
    """C or C++. Inputs on which the source crashes, or a sanitizer or another optimisation gives
    another outcome, are :data:`UNDEFINED`.
    """

    driver: ClassVar[str] = "call.h"

    def __init__(self, options: Sequence[str] = _PLAIN) -> None:
        self.options = tuple(options)

    def outcomes(self, job: Job, milliseconds: int) -> list[list[str] | None]:
        """The outcomes on inputs for which the source's is defined."""
        checked = self._sanitized(job, milliseconds)
        if checked is None:
            return [None] * len(job.texts)
        kept = [at for at, outcome in enumerate(checked) if not outcome.startswith("signal")]
        kept = [at for at in kept if checked[at] != TOO_LONG]
        asked = replace(job, rows=[job.rows[at] for at in kept])
        found = self.called(asked, milliseconds)
        source = found[0]
        if source is None:
            return [None] * len(job.texts)
        pairs = zip(kept, source, strict=True)
        same = [outcome in (checked[at], TOO_LONG) for at, outcome in pairs]
        if not any(same):
            return [None] * len(job.texts)
        return [self._spread(each, kept, same, len(job.rows)) for each in found]

    def _sanitized(self, job: Job, milliseconds: int) -> list[str] | None:
        alone = replace(job, texts=job.texts[:1])
        return type(self)(_SANITIZED).called(alone, _CHECKING * milliseconds)[0]

    @staticmethod
    def _spread(
        found: list[str] | None, kept: Sequence[int], same: Sequence[bool], count: int
    ) -> list[str] | None:
        if found is None:
            return None
        spread = [UNDEFINED] * count
        for at, outcome, defined in zip(kept, found, same, strict=True):
            spread[at] = outcome if defined else UNDEFINED
        return spread

    def program(self) -> Sequence[str]:
        """The program, as it was linked."""
        return ("./program",)

    def target(self, code: Code) -> Target | None:
        """``main``, with what it reads, else the last function whose arguments have known types."""
        if code.prefix:
            return None
        found = [self._target(code, n) for n in code.root.named_children]
        known = [each for each in found if each is not None]
        return next((each for each in known if each.name == "main"), known[-1] if known else None)

    def _target(self, code: Code, node: Node) -> Target | None:
        written, declarator = node.child("type"), node.child("declarator")
        if node.type != "function_definition" or declarator is None or written is None:
            return None
        stars = ""
        while declarator.type == "pointer_declarator":
            stars += "*"
            declarator = declarator.child("declarator") or declarator.children[-1]
        name, parameters = declarator.child("declarator"), declarator.child("parameters")
        if name is None or parameters is None or name.type != "identifier":
            return None
        inner = [n for n in parameters.named_children if n.type not in code.syntax.comments]
        types = tuple(self.normal(declared(code, each)) for each in inner)
        types = () if types == ("void",) else types
        if code.of(name) == "main":
            return Target("main", 0, ("stdin",), "main") if not types else None
        result = self.normal(code.of(written) + stars)
        if self.types.shapes(types) is None or not self.returns(result):
            return None
        return Target(code.of(name), len(types), types, result)

    def normal(self, written: str) -> str:
        """A written type as the table has it."""
        text = re.sub(r"\b(const|register|static|inline|restrict|struct)\b", " ", written)
        return re.sub(r"\s*([*\[\]<>,&])\s*", r"\1", " ".join(text.split())).strip()

    def returns(self, result: str) -> bool:
        """Whether a result of this type can be shown."""
        raise NotImplementedError


def cases(lines: Iterable[Sequence[str]]) -> list[str]:
    """The cases of a ``switch`` over inputs."""
    return [f"    case {at}: {' '.join(each)} break;" for at, each in enumerate(lines)]


def table(places: Sequence[int], name: str) -> Iterable[str]:
    """Initialisers of an array of functions by place; a version that is not there is null."""
    for place in range(max(places) + 1):
        yield f"{candidate(place)}{name}" if place in places else "0"

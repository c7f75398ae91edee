"""Comparing what versions of a function do on generated inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from codeembed.transform.sandbox import RUNNERS, run_calls
from codeembed.transform.tree import Code, Node

__all__ = ["Comparison", "Target", "compare", "generated_inputs", "target_of"]

_TOO_LONG = "too long"
_PATIENCE = 500  # milliseconds, for a call that took too long once
_POSITIONAL = frozenset(
    {"identifier", "default_parameter", "typed_parameter", "typed_default_parameter"}
    | {"assignment_pattern"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """A function that can be called: its name and how many arguments it takes."""

    name: str
    arity: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one version compares with the original.

    Attributes:
        agreed: Inputs with the same outcome.
        differed: Inputs with another outcome.
        returned: Inputs, among those that agreed, on which the original returned.
        loaded: Whether the version could be run at all.
    """

    agreed: int
    differed: int
    returned: int
    loaded: bool


def target_of(code: Code) -> Target | None:
    """The last plain function at the top level whose arguments are passed by position."""
    found: Target | None = None
    for node in code.root.named_children:
        if node.type not in ("function_definition", "function_declaration"):
            continue
        name, parameters = node.child("name"), node.child("parameters")
        if name is None or parameters is None:
            continue
        inner = [n for n in parameters.named_children if n.type not in code.syntax.comments]
        if all(_is_positional(each) for each in inner):
            found = Target(code.of(name), len(inner))
    return found


def _is_positional(node: Node) -> bool:
    splat = any("splat" in each.type for each in node.named_children)
    return node.type in _POSITIONAL and not splat


def generated_inputs(arity: int, count: int, seed: int) -> list[str]:
    """Argument lists as JSON arrays: every kind of value first, then mixtures.

    Deterministic by ``seed``. Kinds repeat over all arguments first, since most functions take
    arguments of one kind.
    """
    random = Random(f"{seed}/inputs")
    kinds = [_integer, _integers, _word, _small, _words, _matrix, _real]
    rows: list[list[Any]] = [[kind(random) for _ in range(arity)] for kind in kinds]
    while len(rows) < count:
        rows.append([random.choice(kinds)(random) for _ in range(arity)])
    return [json.dumps(row) for row in rows[:count]]


def _integer(random: Random) -> int:
    return random.randint(-3, 30)


def _small(random: Random) -> int:
    return random.randint(1, 6)


def _real(random: Random) -> float:
    return random.choice((0.5, 2.25, -1.5, 10.0))


def _integers(random: Random) -> list[int]:
    return [random.randint(-5, 12) for _ in range(random.randint(0, 6))]


def _word(random: Random) -> str:
    return "".join(random.choice("abcAB1 ()x") for _ in range(random.randint(0, 8)))


def _words(random: Random) -> list[str]:
    return [_word(random) for _ in range(random.randint(0, 4))]


def _matrix(random: Random) -> list[list[int]]:
    width = random.randint(1, 3)
    return [[random.randint(0, 9) for _ in range(width)] for _ in range(random.randint(1, 3))]


def compare(
    language: str, source: bytes, versions: Sequence[bytes], target: Target, inputs: Sequence[str]
) -> list[Comparison] | None:
    """Run a source and versions of it on the same inputs.

    Inputs on which either took too long are left out. Where no other input tells a version from the
    source, the first on which only one did runs again with more patience: a version that still does
    not end, or ends otherwise, differs.

    Returns:
        One comparison a version, or None if the source itself cannot be run here: no runner for
        the language, an import that is missing, a crash, or another outcome in a second run.
    """
    runner = RUNNERS.get(language)
    if runner is None or not runner.available:
        return None
    texts = [each.decode("utf-8", "replace") for each in (source, *versions, source)]
    outcomes = run_calls(runner, texts, target.name, inputs)
    before = outcomes[0]
    if before is None or before != outcomes[-1]:
        return None
    found = []
    for text, after in zip(texts[1:-1], outcomes[1:-1], strict=True):
        result = _comparison(before, after)
        slow = _one_sided(before, after)
        if slow and not result.differed:
            asked, pair = inputs[slow[0]], (texts[0], text)
            left, right = run_calls(runner, pair, target.name, [asked], milliseconds=_PATIENCE)
            agreed = result.agreed + (left == right)
            result = replace(result, agreed=agreed, differed=int(left != right))
        found.append(result)
    return found


def _one_sided(before: list[str], after: list[str] | None) -> list[int]:
    """The inputs on which one took too long and the other did not."""
    pairs = [] if after is None else list(zip(before, after, strict=True))
    return [at for at, pair in enumerate(pairs) if pair.count(_TOO_LONG) == 1]


def _comparison(before: list[str], after: list[str] | None) -> Comparison:
    if after is None:
        return Comparison(0, 0, 0, loaded=False)
    pairs = [pair for pair in zip(before, after, strict=True) if _TOO_LONG not in pair]
    agreed = [left for left, right in pairs if left == right]
    returned = sum(left.count(" | ") >= 2 for left in agreed)
    return Comparison(len(agreed), len(pairs) - len(agreed), returned, loaded=True)

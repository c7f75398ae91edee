"""Fresh names for variables."""

from __future__ import annotations

from random import Random

from codeembed.transform.op import RefusedError
from codeembed.transform.scopes import check_free
from codeembed.transform.tree import Code

__all__ = ["WORDS", "fresh_name"]

WORDS = (
    "amount", "anchor", "batch", "bound", "bucket", "carry", "chunk", "cursor", "delta", "depth",
    "entry", "extra", "factor", "front", "gap", "handle", "inner", "joined", "known", "lower",
    "marker", "middle", "needle", "offset", "outer", "part", "pivot", "probe", "queue", "rank",
    "record", "rest", "sample", "scale", "seen", "slot", "source", "span", "state", "step",
    "target", "tail", "token", "total", "unit", "upper", "value", "weight", "window", "worker",
)  # fmt: skip
"""Plain nouns that programmers give to variables."""

_TRIES = 40


def fresh_name(code: Code, random: Random) -> str:
    """A name that no token of the source has, with the language's sigil.

    Raises:
        RefusedError: none was found.
    """
    for number in range(_TRIES):
        word = random.choice(WORDS)
        name = code.syntax.sigil + (word if number < _TRIES // 2 else f"{word}{number}")
        try:
            check_free(code, name)
        except RefusedError:
            continue
        return name
    raise RefusedError("no-fresh-name")

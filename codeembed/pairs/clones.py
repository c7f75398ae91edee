"""Clones of a function by transformation, and deviants that look alike and do something else."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from codeembed.transform.execute import compare_edits
from codeembed.transform.op import transform
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.tree import Code

__all__ = ["Clone", "clone_of"]

_INPUTS = 8
# Layout alone makes no clone, and a deviant of dead code would be no deviant.
_LEFT_OUT = frozenset(
    {"respace", "blank-line", "reindent", "insert-comment", "insert-docstring"}
    | {"insert-dead-code"}
)
_SHAPE = tuple(each for each in PRESERVING if each.name not in _LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Clone:
    """A function under transformation.

    Attributes:
        code: Does what the original does.
        operations: What made it, in order.
        deviants: Texts one breaking edit away from ``code``.
        executed: Whether the original and every text were run and behaved as they should.
    """

    code: str
    operations: tuple[str, ...]
    deviants: tuple[str, ...]
    executed: bool = False


def clone_of(
    code: Code, seed: int = 0, *, edits: int = 3, deviants: int = 2, execute: bool = False
) -> Clone | None:
    """A clone of a function with some deviants (CONCORD, Ding et al., 2023).

    Every edit must parse. Layout alone makes no clone: an embedder should not need to learn it.

    Args:
        code: A function.
        seed: Chooses operations, sites and names.
        edits: How many operations are applied one after the other.
        deviants: How many deviants are wanted.
        execute: RUN the code in a limited child process, where its language has a runner: a clone
            that behaves differently on some input is dropped, and so is a deviant that behaves the
            same on all.

    Returns:
        None where no operation applies, or execution disagrees.
    """
    random = Random(f"{seed}/clone")
    operations = random.sample(_SHAPE, len(_SHAPE))
    changed, applied = code, []
    for operation in operations:
        change = transform(changed, operation, seed)
        if change is not None:
            changed = changed.again(change.edit.apply(changed.text))
            applied.append(operation.name)
        if len(applied) == edits:
            break
    if not applied or changed.text == code.text:
        return None
    texts: list[bytes] = []
    for operation in random.sample(DEVIANTS, len(DEVIANTS)):
        change = transform(changed, operation, seed)
        if change is not None:
            texts.append(change.edit.apply(changed.text))
    agreed = _executed(code, [changed.text, *texts], seed) if execute else None
    if agreed is not None:
        if not agreed[0]:
            return None
        texts = [text for text, same in zip(texts, agreed[1:], strict=True) if not same]
    return Clone(
        changed.text.decode("utf-8", "replace"),
        tuple(applied),
        tuple(text.decode("utf-8", "replace") for text in texts[:deviants]),
        agreed is not None,
    )


def _executed(code: Code, texts: list[bytes], seed: int) -> list[bool] | None:
    """Whether each text did what the original did; None where nothing could be run."""
    results = compare_edits(code, texts, count=_INPUTS, seed=seed)
    if isinstance(results, str) or not any(each.agreed + each.differed for each in results):
        return None
    return [each.same for each in results]

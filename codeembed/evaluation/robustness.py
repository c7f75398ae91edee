"""How an embedder takes renamed variables, and whether it sees a bug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from codeembed.evaluation.sets import read_set
from codeembed.pairs.clones import clone_of
from codeembed.transform.op import transform
from codeembed.transform.ops.rename import RenameLocal, RenameParameter
from codeembed.transform.registry import DEVIANTS
from codeembed.transform.tree import Code
from mmembed.errors import InputError
from mmembed.gpte.metrics import mrr

__all__ = ["Robustness", "renamed", "robustness", "robustness_of"]

Array = np.ndarray[Any, np.dtype[Any]]
Encode = Callable[[Sequence[str]], Array]
_FUNCTIONS = 200


@dataclass(frozen=True, slots=True)
class Robustness:
    """What became of functions under edits.

    Attributes:
        functions: How many were edited.
        renames: By number of renamed variables, the MRR of finding the original with the edited
            function among all originals.
        before_bugs: By number of renamed variables, the share of functions whose edited form is
            nearer to the original than a deviant of it with one bug; a tie is no success.
        deviants: How many functions have a clone and a deviant of it.
        deviant_accuracy: Share of them whose clone is nearer than its deviant; chance is 0.5, and
            a tie is no success.
    """

    functions: int
    renames: dict[int, float]
    before_bugs: dict[int, float]
    deviants: int
    deviant_accuracy: float | None

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def renamed(code: Code, count: int, seed: int = 0) -> Code:
    """A source after up to ``count`` renames of locals and parameters, one after the other."""
    operations = (RenameLocal(), RenameParameter())
    for step in range(count):
        for operation in operations[step % 2 :] + operations[: step % 2]:
            change = transform(code, operation, seed + step)
            if change is not None:
                code = code.again(change.edit.apply(code.text))
                break
        else:
            return code
    return code


def robustness_of(model: Any, task: str | None, data: Path) -> Robustness:
    """:func:`robustness` on the first 200 Python functions of CoSQA.

    Args:
        model: A :class:`mmembed.embedder.Embedder`.
        task: The adapter that reads the functions.
        data: The folder that holds the sets' folders.
    """
    functions = read_set("cosqa", data).documents[:_FUNCTIONS]

    def encode(texts: Sequence[str]) -> Array:
        return np.asarray(model.encode_document(list(texts), task=task, show_progress=False))

    return robustness(functions, "python", encode)


def robustness(
    functions: Sequence[str],
    language: str,
    encode: Encode,
    *,
    counts: Sequence[int] = (0, 1, 2, 4, 8),
    seed: int = 0,
) -> Robustness:
    """The rename curve and the deviant accuracy of an embedder.

    Args:
        functions: Sources; those that do not parse are left out.
        language: Of all of them.
        encode: Vectors of texts.
        counts: Numbers of renames.
        seed: Of names and sites.

    Raises:
        InputError: none of the functions parses.
    """
    codes = []
    for text in dict.fromkeys(functions):
        try:
            codes.append(Code.read(text.encode(), language))
        except InputError:
            continue
    if not codes:
        raise InputError(f"{language} functions", "none of them parses", "check the language")
    originals = _unit(encode([each.text.decode() for each in codes]))
    bugs = {i: bug for i, each in enumerate(codes) if (bug := _with_bug(each, seed)) is not None}
    rows = list(bugs)
    wrong = _nearness(originals[rows], encode(list(bugs.values()))) if bugs else np.zeros(0)
    curve, before_bugs = {}, {}
    for count in counts:
        edited = _unit(encode([renamed(each, count, seed).text.decode() for each in codes]))
        scores = edited @ originals.T
        curve[count] = float(mrr(scores, np.eye(len(codes), dtype=bool)).mean())
        if bugs:
            before_bugs[count] = float((scores.diagonal()[rows] > wrong).mean())
    found = [(i, clone_of(each, seed)) for i, each in enumerate(codes)]
    kept = [(i, clone) for i, clone in found if clone is not None and clone.deviants]
    accuracy = None
    if kept:
        own = originals[[i for i, _ in kept]]
        # The deviant carries the clone's edits and a bug besides.
        near = _nearness(own, encode([clone.code for _, clone in kept]))
        far = _nearness(own, encode([clone.deviants[0] for _, clone in kept]))
        accuracy = float((near > far).mean())
    return Robustness(len(codes), curve, before_bugs, len(kept), accuracy)


def _with_bug(code: Code, seed: int) -> str | None:
    """The source with one breaking edit; None where there is no place for any."""
    for operation in Random(f"{seed}/bug").sample(DEVIANTS, len(DEVIANTS)):
        change = transform(code, operation, seed)
        if change is not None:
            return change.edit.apply(code.text).decode()
    return None


def _nearness(own: Array, vectors: Array) -> Array:
    return np.asarray((own * _unit(vectors)).sum(axis=1))


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))

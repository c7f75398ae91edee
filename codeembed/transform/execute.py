"""Comparing what versions of a function do on generated inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from codeembed.transform.runners import RUNNERS
from codeembed.transform.runners.runner import TOO_LONG, UNDEFINED, Runner, Target
from codeembed.transform.tree import Code

__all__ = ["Comparison", "compare", "compare_edits", "runner_of"]

_PATIENCE = 500  # milliseconds, for a call that took too long once


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one version compares with the original.

    Attributes:
        agreed: Inputs with the same outcome.
        differed: Inputs with another outcome.
        returned: Inputs, among those that agreed, on which the original returned.
        loaded: Whether the version compiles or loads at all.
    """

    agreed: int
    differed: int
    returned: int
    loaded: bool

    @property
    def same(self) -> bool:
        """Whether nothing tells the version from the original."""
        return self.loaded and self.differed == 0


def runner_of(language: str) -> Runner | None:
    """What runs a language here; None if nothing does."""
    runner = RUNNERS.get(language)
    return runner if runner is not None and runner.available else None


def compare_edits(
    code: Code, texts: Sequence[bytes], *, count: int, seed: int
) -> list[Comparison] | str:
    """Run a source and edits of it on generated inputs.

    Args:
        code: The source.
        texts: What became of :attr:`Code.text`.
        count: How many inputs.
        seed: Chooses them.

    Returns:
        One comparison a text, or why there is none: ``no-runner``, ``unknown-arguments`` (no
        function at the top level that can be called, or types for which no values are made), or
        ``does-not-run`` (it does not compile or load alone, or its outcomes are not repeatable).
    """
    runner = runner_of(code.language.name)
    if runner is None:
        return "no-runner"
    target = runner.target(code)
    if target is None:
        return "unknown-arguments"
    inputs = runner.inputs(target, count, seed)
    versions = [code.prefix + text + code.suffix for text in texts]
    results = compare(code.language.name, code.source, versions, target, inputs)
    return "does-not-run" if results is None else results


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
    runner = runner_of(language)
    if runner is None:
        return None
    texts = [each.decode("utf-8", "replace") for each in (source, *versions, source)]
    outcomes = runner.run(texts, target, inputs)
    before = outcomes[0]
    if before is None or before != outcomes[-1]:
        return None
    found = []
    for text, after in zip(texts[1:-1], outcomes[1:-1], strict=True):
        result = _comparison(before, after)
        slow = _one_sided(before, after)
        if slow and not result.differed:
            asked, pair = inputs[slow[0]], (texts[0], text)
            left, right = runner.run(pair, target, [asked], milliseconds=_PATIENCE)
            agreed = result.agreed + (left == right)
            result = replace(result, agreed=agreed, differed=int(left != right))
        found.append(result)
    return found


def _one_sided(before: list[str], after: list[str] | None) -> list[int]:
    """The inputs on which one took too long and the other did not."""
    pairs = [] if after is None else list(zip(before, after, strict=True))
    return [at for at, pair in enumerate(pairs) if pair.count(TOO_LONG) == 1]


def _comparison(before: list[str], after: list[str] | None) -> Comparison:
    if after is None:
        return Comparison(0, 0, 0, loaded=False)
    open_ends = {TOO_LONG, UNDEFINED}
    pairs = [pair for pair in zip(before, after, strict=True) if not open_ends & set(pair)]
    agreed = [left for left, right in pairs if left == right]
    returned = sum(left.count(" | ") >= 2 for left in agreed)
    return Comparison(len(agreed), len(pairs) - len(agreed), returned, loaded=True)

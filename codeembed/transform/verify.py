"""Checking edits: they parse, they rename and nothing else, they do or do not change outcomes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from codeembed.transform.execute import compare_edits
from codeembed.transform.lexemes import same_tokens
from codeembed.transform.op import Change, Operation, Tally, changes
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.scopes import outer_functions, variables
from codeembed.transform.tree import Code

__all__ = ["OperationReport", "Report", "alpha_equivalent", "canonical", "verify"]

_INPUTS = 14
_RENAMES = frozenset({"rename-local", "rename-parameter", "canonicalise"})
_LAYOUT = frozenset({"respace", "blank-line", "reindent", "compress", "remove-comment"}) | {
    "insert-comment"
}


def canonical(code: Code) -> list[tuple[str, bytes]]:
    """Tokens with every variable that may be renamed replaced by its order in its function."""
    labels: dict[int, bytes] = {}
    for function in outer_functions(code):
        free = [v for v in variables(code, function) if not v.refusal]
        for order, variable in enumerate(free):
            for node in variable.occurrences:
                labels[node.index] = str(order).encode()
    tokens: list[tuple[str, bytes]] = []
    for node in code.nodes:
        if node.index in labels and node.type in code.syntax.shorthands:
            # `{x}` is `{x: x}`: the field keeps its name when the variable gets another.
            tokens.append(("field", code.bytes_of(node)))
        if node.index in labels:
            tokens.append(("variable", labels[node.index]))
        elif not node.children and not (node.parent and node.parent.index in labels):
            field = "property" in node.type
            tokens.append(("field" if field else node.type, code.bytes_of(node)))
    return [each for each in tokens if each != (":", b":")]


def alpha_equivalent(first: Code, second: Code) -> bool:
    """Whether two sources become equal when each names its locals canonically."""
    return canonical(first) == canonical(second)


@dataclass(slots=True)
class OperationReport:
    """Counts of one operation over some sources of one language.

    Attributes:
        sites: Sites that the scout found.
        edits: Sites that were edited.
        refusals: Sites refused, by reason.
        reparsed: Edits whose result parses cleanly.
        inverted: Edits whose inverse gives the source back.
        alpha_checked: Edits for which equality up to names or layout was checked.
        alpha_equal: Edits that passed it.
        executed: Edits whose result was run.
        inputs: Inputs on which both versions gave an outcome.
        returned: Inputs, among those that agreed, on which the original returned a value.
        disagreements: Executed edits that differ on some input. For a preserving operation this
            must be 0.
        dropped: Executed deviants that differ on no input, so that they are not used.
        failures: The first few results that broke a check.
    """

    sites: int = 0
    edits: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    reparsed: int = 0
    inverted: int = 0
    alpha_checked: int = 0
    alpha_equal: int = 0
    executed: int = 0
    inputs: int = 0
    returned: int = 0
    disagreements: int = 0
    dropped: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Counts by language and operation.

    Attributes:
        languages: Language to operation to counts.
        functions: Sources by language.
        unreadable: Sources by language that do not parse before any edit, so none was tried.
        runs: Sources by language and by what came of running them: ``executed``, or why not, as
            :func:`codeembed.transform.execute.compare_edits` says.
    """

    languages: dict[str, dict[str, OperationReport]] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    runs: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def of(self, language: str, operation: str) -> OperationReport:
        """The counts of one operation, made when first asked for."""
        return self.languages.setdefault(language, {}).setdefault(operation, OperationReport())


def verify(
    code: Code, report: Report, *, seed: int = 0, each: int = 3, execute: bool = True
) -> list[Change]:
    """Try every operation on a source and count what came of it.

    Args:
        code: The source.
        report: Where to count.
        seed: For names, snippets and inputs.
        each: Most edits of an operation that are checked beyond the parse (the first, the last
            and some between).
        execute: Run the versions where the language has a runner.

    Returns:
        The edits that passed: preserving ones, and deviants that differ where they could be run.
    """
    name = code.language.name
    report.functions[name] = report.functions.get(name, 0) + 1
    tried: list[tuple[Operation, Change]] = []
    for operation in (*PRESERVING, *DEVIANTS):
        counts = report.of(name, operation.name)
        tally = Tally()
        found = changes(code, operation, seed, tally)
        counts.sites += tally.sites
        counts.edits += tally.edits
        for reason, number in tally.refusals.items():
            counts.refusals[reason] = counts.refusals.get(reason, 0) + number
        step = max(1, -(-len(found) // each))
        for place, change in enumerate(found):
            passed = _check_text(code, counts, change, alpha=place % step == 0)
            if passed and place % step == 0:
                tried.append((operation, change))
    return _check_outcomes(code, report, tried, seed) if execute else [c for _, c in tried]


def _check_text(code: Code, counts: OperationReport, change: Change, *, alpha: bool) -> bool:
    text = change.edit.apply(code.text)
    after = code.again(text)
    parses = not after.has_error
    inverse = change.edit.invert().apply(text) == code.text
    counts.reparsed += parses
    counts.inverted += inverse
    equal = True
    if alpha and change.operation in _RENAMES | _LAYOUT:
        counts.alpha_checked += 1
        renames = change.operation in _RENAMES
        equal = alpha_equivalent(code, after) if renames else same_tokens(code, after)
        counts.alpha_equal += equal
    if not (parses and inverse and equal):
        _remember(counts, text)
    return parses and inverse and equal


def _remember(counts: OperationReport, text: bytes) -> None:
    if len(counts.failures) < 3:
        counts.failures.append(text.decode("utf-8", "replace")[:2000])


def _check_outcomes(
    code: Code, report: Report, tried: list[tuple[Operation, Change]], seed: int
) -> list[Change]:
    everything = [change for _, change in tried]
    texts = [change.edit.apply(code.text) for change in everything]
    results = compare_edits(code, texts, count=_INPUTS, seed=seed)
    runs = report.runs.setdefault(code.language.name, {})
    came_of_it = results if isinstance(results, str) else "executed"
    runs[came_of_it] = runs.get(came_of_it, 0) + 1
    if isinstance(results, str):
        return everything
    kept: list[Change] = []
    for (operation, change), text, result in zip(tried, texts, results, strict=True):
        counts = report.of(code.language.name, operation.name)
        counts.executed += 1
        counts.inputs += result.agreed + result.differed
        counts.returned += result.returned
        differs = not result.same
        counts.disagreements += differs
        if operation in DEVIANTS:
            counts.dropped += not differs
            if differs and result.loaded:
                kept.append(change)
        elif differs:
            _remember(counts, text)
        else:
            kept.append(change)
    return kept

"""Interpreted languages: a driver in the language itself loads and calls every version."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from codeembed.transform.runners.erase import without_types
from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import untyped_inputs
from codeembed.transform.sandbox import MEMORY, Limits, limited
from codeembed.transform.syntax import words
from codeembed.transform.tree import Code, Node

__all__ = ["JAVASCRIPT", "PHP", "PYTHON", "RUBY", "TYPESCRIPT", "Scripted"]

_SECONDS = 5
_OUTPUT = 1 << 22
_SLOW_CALLS = 2


@dataclass(frozen=True, slots=True)
class Scripted:
    """How the functions of an interpreted language are called.

    Attributes:
        command: The program with its options; the name of the driver file follows.
        driver: File in ``codeembed/transform/drivers``.
        memory: Bytes of address space, or None where an option holds it.
        definitions: Nodes that define a function by name.
        values: Nodes that are a function when assigned to a name.
        positional: Parameters that are passed by position.
        prepare: What becomes of a version's text before it is run; None for one that cannot be.
    """

    command: tuple[str, ...]
    driver: str
    memory: int | None = MEMORY
    definitions: frozenset[str] = field(
        default_factory=lambda: words("function_definition function_declaration")
    )
    values: frozenset[str] = frozenset()
    positional: frozenset[str] = frozenset()
    prepare: Callable[[str], str | None] = str

    @property
    def available(self) -> bool:
        """Whether the program is installed."""
        return shutil.which(self.command[0]) is not None

    def target(self, code: Code) -> Target | None:
        """The last plain function at the top level whose arguments are passed by position."""
        found: Target | None = None
        for node in code.root.named_children:
            for name, function in self._functions(node):
                parameters = function.child("parameters")
                inner = parameters.named_children if parameters else []
                inner = [each for each in inner if each.type not in code.syntax.comments]
                if all(self._is_positional(each) for each in inner):
                    found = Target(code.of(name), len(inner))
        return found

    def _functions(self, node: Node) -> list[tuple[Node, Node]]:
        if node.type in self.definitions:
            name = node.child("name")
            return [(name, node)] if name else []
        pairs = [(each.child("name"), each.child("value")) for each in node.named_children]
        return [(name, value) for name, value in pairs if name and value and self._is_value(value)]

    def _is_value(self, node: Node) -> bool:
        return node.type in self.values and node.child("parameters") is not None

    def _is_positional(self, node: Node) -> bool:
        splat = any("splat" in each.type or "rest" in each.type for each in node.named_children)
        return node.type in self.positional and not splat

    def inputs(self, target: Target, count: int, seed: int) -> list[str]:
        """Values of every kind: no types are declared, or none that are checked."""
        return untyped_inputs(target.arity, count, seed)

    def run(
        self,
        texts: Sequence[str],
        target: Target,
        inputs: Sequence[str],
        *,
        milliseconds: int = 100,
    ) -> list[list[str] | None]:
        """See :meth:`codeembed.transform.runners.runner.Runner.run`."""
        outcomes: list[list[str] | None] = [None] * len(texts)
        prepared = [(place, self.prepare(text)) for place, text in enumerate(texts)]
        places = [place for place, text in prepared if text is not None]
        if 0 not in places:
            return outcomes
        sources = [text for _, text in prepared if text is not None]
        asked = {"sources": sources, "function": target.name, "inputs": list(inputs)}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            limits = {"milliseconds": milliseconds, "patience": _SLOW_CALLS}
            (folder / "job.json").write_text(json.dumps({**asked, **limits}))
            driver = resources.files("codeembed.transform") / "drivers" / self.driver
            (folder / self.driver).write_bytes(driver.read_bytes())
            seconds = _SECONDS + 2 * len(sources)
            result = folder / "out.jsonl"
            limited((*self.command, self.driver), folder, Limits(seconds, self.memory), result)
            for line in result.read_bytes()[:_OUTPUT].splitlines():
                try:
                    at, values = json.loads(line)
                except ValueError:
                    break
                outcomes[places[at]] = values
        return outcomes


PYTHON = Scripted(
    (sys.executable, "-I", "-S"),
    "call.py",
    positional=words("identifier default_parameter typed_parameter typed_default_parameter"),
)
JAVASCRIPT = Scripted(
    ("node", "--max-old-space-size=256"),
    "call.js",
    memory=None,
    values=words("function_expression arrow_function"),
    positional=words("identifier assignment_pattern"),
)
TYPESCRIPT = Scripted(
    JAVASCRIPT.command,
    JAVASCRIPT.driver,
    memory=None,
    values=JAVASCRIPT.values,
    positional=words("required_parameter optional_parameter"),
    prepare=without_types,
)
RUBY = Scripted(
    ("ruby", "--disable-gems"),
    "call.rb",
    definitions=words("method"),
    positional=words("identifier optional_parameter"),
)
# The driver starts a process a version, as a function can be declared once.
PHP = Scripted(
    ("php", "-d", "display_errors=0", "-d", "memory_limit=256M"),
    "call.php",
    positional=words("simple_parameter"),
)

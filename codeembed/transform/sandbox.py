"""Running functions of unknown code: a child process with limits, and what it returned.

This keeps accidents in: endless loops, memory, forks, files written by chance, the network where
the kernel allows user namespaces. It is not a defence against code that attacks the kernel.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

__all__ = ["RUNNERS", "Runner", "run_calls"]

MEMORY = 1 << 30
"""Bytes of address space for Python; node reserves far more and gets its own heap limit."""

FILE_SIZE = 1 << 20
SECONDS = 5
_OUTPUT = 1 << 22
_SLOW_CALLS = 2


@dataclass(frozen=True, slots=True)
class Runner:
    """How the functions of one language are called.

    Attributes:
        command: The program with its options; the name of the driver file follows.
        driver: File in ``codeembed/transform/drivers``.
        limit_memory: Whether :data:`MEMORY` applies.
    """

    command: tuple[str, ...]
    driver: str
    limit_memory: bool = True

    @property
    def available(self) -> bool:
        """Whether the program is installed."""
        return shutil.which(self.command[0]) is not None


RUNNERS = {
    "python": Runner((sys.executable, "-I", "-S"), "call.py"),
    "javascript": Runner(("node", "--max-old-space-size=256"), "call.js", limit_memory=False),
}
"""Languages that are executed."""


def run_calls(
    runner: Runner,
    sources: Sequence[str],
    function: str,
    inputs: Sequence[str],
    *,
    milliseconds: int = 100,
) -> list[list[str] | None]:
    """Call one function of several versions of a source on the same inputs, in one process.

    Args:
        runner: The language's runner.
        sources: Versions of a source that defines ``function`` at its top level.
        function: Its name.
        inputs: Argument lists as JSON arrays.
        milliseconds: Of processor time that a call may take, and four times as much loading: wall
            time would depend on what else runs.

    Returns:
        For each source, one outcome an input: the returned value, the arguments afterwards and
        what was printed, or the type of the error, or that the call or the loading took too long,
        as text. What follows two calls that took too long, or took the first source too long, is
        not tried, and says so too. None for a version that could not be loaded or was cut off by
        the limits.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        asked = {"sources": list(sources), "function": function, "inputs": list(inputs)}
        limits = {"milliseconds": milliseconds, "patience": _SLOW_CALLS}
        job.write_text(json.dumps({**asked, **limits}))
        driver = resources.files("codeembed.transform") / "drivers" / runner.driver
        script = Path(folder) / runner.driver
        script.write_bytes(driver.read_bytes())
        outcomes: list[list[str] | None] = [None] * len(sources)
        result = Path(folder) / "out.jsonl"
        with result.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*_without_network(), *runner.command, script.name],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "HOME": folder},
                timeout=SECONDS + 2 * len(sources),
                preexec_fn=lambda: _limit(runner, len(sources)),
                check=False,
            )
        for line in result.read_bytes()[:_OUTPUT].splitlines():
            try:
                place, values = json.loads(line)
            except ValueError:
                break
            outcomes[place] = values
    return outcomes


@cache
def _without_network() -> tuple[str, ...]:
    """A prefix that takes the network away, where the kernel lets an ordinary user do so."""
    if shutil.which("unshare") is None:
        return ()
    command = ("unshare", "--user", "--map-root-user", "--net", "--")
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


def _limit(runner: Runner, sources: int) -> None:
    seconds = SECONDS + 2 * sources
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE * 4, FILE_SIZE * 4))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if runner.limit_memory:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

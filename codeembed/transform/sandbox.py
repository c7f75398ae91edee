"""Running unknown code: a child process with limits.

This keeps accidents in: endless loops, memory, forks, files written by chance, the network where
the kernel allows user namespaces. It is not a defence against code that attacks the kernel.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["MEMORY", "Limits", "compiles", "limited"]

MEMORY = 1 << 30
"""Bytes of address space, where a language's own program does not reserve far more."""

_FILE_SIZE = 4 << 20
_COMPILING = 120
_SAID = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child process may use.

    Attributes:
        seconds: Of processor time, and of wall time twice as much.
        memory: Bytes of address space; None where the program reserves what it does not use and
            is held by an option of its own.
        environment: Variables beside ``PATH`` and ``HOME``.
    """

    seconds: int
    memory: int | None = MEMORY
    environment: Mapping[str, str] = field(default_factory=dict)


def limited(command: Sequence[str], folder: Path, limits: Limits, printed: Path) -> int | None:
    """Run a program in a folder, without input and without a network.

    Args:
        command: The program, found on the caller's path, and its arguments.
        folder: Where it runs, and its home.
        limits: What it may use.
        printed: The file that takes its standard output; what was there is lost.

    Returns:
        Its exit status, below 0 for the signal that ended it; None where wall time did.
    """
    with printed.open("wb") as emptied:
        emptied.truncate()
    with printed.open("ab") as out:
        try:
            done = subprocess.run(
                [*_without_network(), shutil.which(command[0]) or command[0], *command[1:]],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **limits.environment},
                timeout=2 * limits.seconds,
                preexec_fn=lambda: _limit(limits),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def compiles(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> str | None:
    """Run a compiler, which reads unknown code and runs none of it.

    Returns:
        What it said where it failed; None where it did not.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            timeout=_COMPILING,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    return done.stdout[:_SAID].decode("utf-8", "replace") if done.returncode else None


@cache
def _without_network() -> tuple[str, ...]:
    """A prefix that takes the network away, where the kernel lets an ordinary user do so."""
    if shutil.which("unshare") is None:
        return ()
    command = ("unshare", "--user", "--map-root-user", "--net", "--")
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))

"""The ``codeembed transform`` command: variants of a file, and what was verified of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output

__all__ = ["transform"]


def transform(
    path: Path,
    /,
    *,
    lang: Annotated[str | None, Parameter(name=["--lang", "-l"])] = None,
    op: Annotated[list[str] | None, Parameter(negative="")] = None,
    seed: int = 0,
    execute: bool = False,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Print variants of a source file and what was verified of each operation.

    For example:

        codeembed transform work.py --op rename-local --op swap-branches

        codeembed transform work.js --execute --json

    Args:
        path: The file.
        lang: Its language; by default from its name.
        op: Only variants of this operation; give it again for more.
        seed: Chooses names and snippets.
        execute: RUN the code of the file in limited child processes, where a program for its
            language is installed.
        json: JSON lines: one a variant, then the report.
    """
    from codeembed.languages import detect
    from codeembed.transform.registry import DEVIANTS, PRESERVING
    from codeembed.transform.tree import Code
    from codeembed.transform.verify import Report, verify
    from mmembed.errors import ConfigError, InputError

    output = Output(json=json)
    names = [each.name for each in (*PRESERVING, *DEVIANTS)]
    for name in op or ():
        if name not in names:
            raise ConfigError(f"unknown operation {name!r}; known: {', '.join(names)}")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    code = Code.read(text, lang or detect(path.name, text[:1000]))
    report = Report()
    kept = [
        change
        for change in verify(code, report, seed=seed, execute=execute)
        if not op or change.operation in op
    ]
    for change in kept:
        after = change.edit.apply(code.text).decode("utf-8", "replace")
        record: dict[str, Any] = {
            "operation": change.operation,
            "start": change.start,
            "end": change.end,
            "text": after,
        }
        output.result(record, f"--- {change.operation} at byte {change.start}\n{after}")
    lines = [
        f"{name:22} {counts.sites} sites, {counts.edits} edits, "
        f"{sum(counts.refusals.values())} refused, {counts.executed} executed, "
        f"{counts.disagreements} differ"
        for name, counts in report.languages[code.language.name].items()
        if not op or name in op
    ]
    output.result({"report": report.as_json()}, "\n".join(lines))
    return EXIT_OK if kept else EXIT_NOTHING

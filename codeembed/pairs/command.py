"""The ``codeembed pairs`` command."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codeembed.pairs.mining import Mined
    from codeembed.pairs.pair import Pair

__all__ = ["pairs"]

_ALL = ("docstring", "comment", "name", "clone", "translation", "commit", "issue")


def pairs(
    folder: Path,
    /,
    *,
    into: Path,
    kind: Annotated[
        list[Literal["docstring", "comment", "name", "clone", "translation", "commit", "issue"]]
        | None,
        Parameter(negative=""),
    ] = None,
    split: Literal["train", "dev", "test", "all"] = "all",
    packages: bool = False,
    commits: int = 5000,
    execute: bool = False,
    seed: int = 0,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Mine training pairs from a folder of source code, as rows for `mmembed train`.

    Rows have query, positive, negatives (of clones), kind, language, repository, path and split. A
    repository is in one split as a whole. Near-duplicates are left out.

    For example:

        codeembed pairs ~/project --into pairs.jsonl

        codeembed pairs site-packages --packages --kind docstring --split train --into train.jsonl

    Args:
        folder: The source code.
        into: The JSONL file to write.
        kind: Only pairs of this kind; give it again for more.
        split: Only repositories of this split.
        packages: Each folder or module at the top is a repository of its own.
        commits: How many commits to read at most, where the folder is in a git repository.
        execute: RUN functions in a limited child process to verify clones and deviants.
        seed: Of clones.
        json: Print the counts as JSON.
    """
    from codeembed.pairs.duplicates import unique
    from codeembed.pairs.mining import Mined

    output = Output(json=json)
    mined = Mined()
    wanted = tuple(kind or _ALL)
    partial = into.with_name(f".{into.name}.partial")
    kept: dict[str, int] = {}
    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("w", encoding="utf-8") as stream:
            found = _mine(folder, wanted, packages, commits, execute, seed, mined)
            for pair in unique(found):
                row = pair.as_row()
                if split in ("all", row["split"]):
                    stream.write(json_format.dumps(row, ensure_ascii=False) + "\n")
                    kept[pair.kind] = kept.get(pair.kind, 0) + 1
        partial.replace(into)
    finally:
        partial.unlink(missing_ok=True)
    record = {
        "files": mined.files,
        "unreadable": mined.unreadable,
        "mined": dict(mined.kept),
        "written": kept,
        "dropped": dict(mined.dropped.most_common()),
    }
    told = ", ".join(f"{count} {name}" for name, count in kept.items()) or "no pairs"
    output.result(record, f"{told} of {mined.files} files in {into}")
    return EXIT_OK if kept else EXIT_NOTHING


def _mine(
    folder: Path,
    kinds: tuple[str, ...],
    packages: bool,
    commits: int,
    execute: bool,
    seed: int,
    mined: Mined,
) -> Iterator[Pair]:
    from codeembed.pairs.history import mine_history
    from codeembed.pairs.mining import FILE_KINDS, Mined, mine_folder, package_of
    from codeembed.pairs.translations import mine_translations

    chosen = [each for each in FILE_KINDS if each in kinds]
    if chosen:
        yield from mine_folder(
            folder,
            kinds=chosen,
            repository=package_of if packages else "",
            seed=seed,
            execute=execute,
            mined=mined,
        )
    if "translation" in kinds:
        alone = Mined()  # the files are counted already
        yield from mine_translations(folder, repository=package_of if packages else "", mined=alone)
        mined.kept += alone.kept
        mined.dropped += alone.dropped
    in_git = any((up / ".git").exists() for up in (folder.resolve(), *folder.resolve().parents))
    if {"commit", "issue"} & set(kinds) and in_git:
        found = mine_history(folder, limit=commits, mined=mined)
        yield from (pair for pair in found if pair.kind in kinds)

"""Pairs of a file and of a folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from codeembed.languages import detect
from codeembed.pairs.clones import clone_of
from codeembed.pairs.functions import Function, blocks_of, functions_of, name_words
from codeembed.pairs.pair import Kind, Pair
from codeembed.pairs.quality import code_problem, summary_of, text_problem
from codeembed.parse import ParseTimeoutError
from codeembed.transform.syntaxes import SYNTAXES
from codeembed.transform.tree import Code
from codeembed.walk import Skipped, read_source, walk
from mmembed.errors import InputError

__all__ = ["FILE_KINDS", "Mined", "mine_file", "mine_folder", "package_of", "sources_of"]

_log = logging.getLogger(__name__)
FILE_KINDS: tuple[Kind, ...] = ("docstring", "comment", "name", "clone")
"""What is mined of each file alone; commits need a history, translations other files."""


@dataclass(slots=True)
class Mined:
    """Counts of a run.

    Attributes:
        files: Files that were read.
        unreadable: Files that do not parse cleanly, so that none of their functions was taken.
        kept: Pairs by kind, before duplicates are removed.
        dropped: Candidates by the reason that they were left out.
    """

    files: int = 0
    unreadable: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def mine_folder(
    folder: Path,
    *,
    kinds: Collection[Kind] = FILE_KINDS,
    repository: str | Callable[[str], str] = "",
    seed: int = 0,
    execute: bool = False,
    mined: Mined | None = None,
) -> Iterator[Pair]:
    """The pairs of every file of a folder in a language with transformations.

    Args:
        folder: Its ``.gitignore`` files count, as in an index.
        kinds: Which pairs.
        repository: What the code belongs to, or a function of the file's path; the folder's name
            by default.
        seed: Of clones.
        execute: RUN functions to verify clones; see :func:`codeembed.pairs.clones.clone_of`.
        mined: Where to count.

    Raises:
        InputError: the folder cannot be read.
    """
    counts = mined if mined is not None else Mined()
    for data, language, owner, path in sources_of(folder, repository, counts):
        yield from mine_file(
            data,
            language,
            owner,
            path,
            kinds=kinds,
            seed=seed,
            execute=execute,
            mined=counts,
        )


def sources_of(
    folder: Path, repository: str | Callable[[str], str], counts: Mined
) -> Iterator[tuple[bytes, str, str, str]]:
    """Bytes, language, repository and path of every file in a language with transformations.

    Args:
        folder: Its ``.gitignore`` files count, as in an index.
        repository: What the code belongs to, or a function of the file's path; the folder's name
            by default.
        counts: Where files are counted.

    Raises:
        InputError: the folder cannot be read.
    """
    found = walk(folder)
    for file in found.files:
        data = read_source(found.root, file.path)
        if isinstance(data, Skipped):
            continue
        language = detect(file.path, data[:1000])
        if language not in SYNTAXES:
            continue
        owner = repository(file.path) if callable(repository) else repository or found.root.name
        counts.files += 1
        yield data, language, owner, file.path


def package_of(path: str) -> str:
    """The first part of a path: the package, in a folder of installed packages."""
    return path.partition("/")[0].removesuffix(".py")


def mine_file(
    data: bytes,
    language: str,
    repository: str,
    path: str,
    *,
    kinds: Collection[Kind] = FILE_KINDS,
    seed: int = 0,
    execute: bool = False,
    mined: Mined | None = None,
) -> Iterator[Pair]:
    """The pairs of one file; none if it does not parse cleanly.

    Args:
        data: Bytes of a file in ``language``, which has transformations.

    Raises:
        InputError: the language has no transformations.
    """
    counts = mined if mined is not None else Mined()
    try:
        code = Code.read(data, language)
    except (InputError, ParseTimeoutError):
        if language not in SYNTAXES:
            raise
        counts.unreadable += 1
        return

    def checked(kind: Kind, query: str, positive: str, line: int) -> Iterator[Pair]:
        problem = text_problem(query) or code_problem(positive)
        if problem:
            counts.dropped[f"{kind}: {problem}"] += 1
            return
        counts.kept[kind] += 1
        yield Pair(query, positive, kind, language, repository, f"{path}:{line}")

    for function in functions_of(code):
        summary = summary_of(function.documentation)
        if "docstring" in kinds and function.documentation:
            yield from checked("docstring", summary, function.code, function.line)
        if "name" in kinds and not function.name.startswith("__"):
            words = name_words(function.name)
            yield from checked("name", " ".join(words), function.body, function.line)
        if "clone" in kinds and not code_problem(function.code):
            pair = _clone(function, language, repository, path, seed, execute)
            if pair is None:
                counts.dropped["clone: none"] += 1
            else:
                counts.kept["clone"] += 1
                yield pair
    if "comment" in kinds:
        for block in blocks_of(code):
            yield from checked("comment", summary_of(block.comment), block.code, block.line)


def _clone(
    function: Function, language: str, repository: str, path: str, seed: int, execute: bool
) -> Pair | None:
    try:
        code = Code.read(function.code.encode(), language)
        clone = clone_of(code, seed, execute=execute)
    except (InputError, ParseTimeoutError) as error:
        _log.debug("%s:%d: %s", path, function.line, error)
        return None
    if clone is None:
        return None
    place = f"{path}:{function.line}"
    return Pair(function.code, clone.code, "clone", language, repository, place, clone.deviants)

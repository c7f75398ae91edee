"""Which files of a folder are worth reading, and why the others are not."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from codeembed.ignore import IgnoreRules
from codeembed.languages import UNKNOWN, detect
from codeembed.notebook import notebook_script
from mmembed.errors import InputError

__all__ = [
    "DEFAULT_MAX_BYTES",
    "IGNORED_DIRS",
    "FoundFile",
    "Skip",
    "Skipped",
    "Walk",
    "read_source",
    "stamp_of",
    "walk",
]

DEFAULT_MAX_BYTES = 1 << 20
INDEX_DIR = ".codeembed"
_GIT_IGNORE = ".gitignore"
# A folder in a clone, a file in a submodule and in a worktree.
_REPOSITORY = ".git"
IGNORE_FILES = (_GIT_IGNORE, ".codeembedignore")
"""Read in every folder; later files override earlier ones."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


IGNORED_DIRS = _names(
    """
    .git .hg .svn .bzr .jj .codeembed .mmembed .venv venv .tox .nox __pycache__ .mypy_cache
    .ruff_cache .pytest_cache .hypothesis .eggs node_modules bower_components .yarn .pnpm-store
    .next .nuxt .svelte-kit .gradle .terraform .idea .vs .cache .parcel-cache .turbo DerivedData
    .dart_tool .bundle
    """
)
_LOCK_FILES = _names(
    """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock poetry.lock
    Pipfile.lock uv.lock pdm.lock Cargo.lock composer.lock Gemfile.lock go.sum flake.lock
    mix.lock pubspec.lock Podfile.lock packages.lock.json gradle.lockfile
    """
)
_GENERATED_NAME = re.compile(
    r"[.-]min\.(?:js|css|mjs)$|\.bundle\.js$|_pb2(?:_grpc)?\.pyi?$|\.pb\.(?:go|cc|h)$|\.g\.dart$"
    r"|\.designer\.cs$|\.map$",
    re.IGNORECASE,
)
_DATA_SUFFIXES = _names(
    """
    .csv .tsv .jsonl .ndjson .log .svg .lock .snap .pem .crt .key
    """
)
# The marks must be in a comment near the top: a file that merely speaks of them is not generated.
_GENERATED_MARK = re.compile(
    rb"^\W*(?:.{0,80}\W)?(?:@generated\b|code generated .{0,80}do not edit"
    rb"|auto-?generated .{0,80}do not (?:edit|modify))",
    re.IGNORECASE | re.MULTILINE,
)
_COMMENT_START = (b"#", b"//", b"/*", b"*", b"--", b";", b"<!--", b'"""', b"%")
_GENERATED_WITHIN = 2048
_SNIFFED = 8192
_LONGEST_MEAN_LINE = 300
_LONGEST_LINE = 50_000
# Most of a notebook is pictures of results, which are not read.
_NOTEBOOK_SHARE = 16
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Skip(StrEnum):
    """Why a file or folder was not read."""

    IGNORED = "ignored"
    DEFAULT_DIR = "default-ignored-dir"
    SYMLINK_LOOP = "symlink-loop"
    SYMLINK = "symlink"
    OUTSIDE = "symlink-outside-root"
    BROKEN_LINK = "broken-symlink"
    SPECIAL = "not-a-regular-file"
    TOO_LARGE = "too-large"
    EMPTY = "empty"
    BINARY = "binary"
    UTF16 = "utf-16"
    MINIFIED = "minified"
    GENERATED = "generated"
    LOCK_FILE = "lock-file"
    DATA = "data-file"
    UNREADABLE = "unreadable"
    BAD_NAME = "name-not-utf-8"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was left out.

    Attributes:
        path: Relative to the root, with ``/``; a folder ends with ``/``.
        reason: Why.
        detail: More, e.g. the system's error; may be empty.
    """

    path: str
    reason: Skip
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read.

    Attributes:
        path: Relative to the root, with ``/``.
        size: In bytes.
        mtime_ns: When its content changed, as it says.
        stamp: Size, times and inode: what cannot all stay while the content changes, for the
            system itself keeps the time of the last change of anything (ctime).
    """

    path: str
    size: int
    mtime_ns: int
    stamp: str


@dataclass(slots=True)
class Walk:
    """The files of a folder in sorted order, and everything that was left out."""

    root: Path
    files: list[FoundFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def walk(root: str | Path, max_bytes: int = DEFAULT_MAX_BYTES, ignore: Sequence[str] = ()) -> Walk:
    """Find the files below a folder.

    ``.gitignore`` and ``.codeembedignore`` count in every folder, with negation, as git reads them;
    those of the folders above the root count too, up to the folder that holds ``.git``, so that a
    subfolder of a repository is seen as git sees it. A repository inside (a clone, a submodule, a
    worktree) is walked as part of the folder, by its own ``.gitignore`` files and not by those
    around it. Patterns never see the root's own path.

    Args:
        root: The folder.
        max_bytes: Larger files are skipped.
        ignore: More patterns, as if at the end of an ignore file of the root.

    Raises:
        InputError: the root is not a folder that can be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(str(root), "is not a folder", "name a folder of source code")
    result = Walk(root.resolve())
    _Walker(result, max_bytes, ignore).run()
    result.files.sort(key=lambda found: found.path)
    result.skipped.sort(key=lambda skipped: skipped.path)
    return result


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one folder's ignore file; ``prefix`` is what paths have before that folder.

    ``above`` is the way from that folder down to the root, for ignore files above the root, and
    ``of_git`` says whether they end where another repository begins.
    """

    rules: IgnoreRules
    prefix: str
    above: str = ""
    of_git: bool = False

    def verdict(self, path: str) -> bool | None:
        """True for ignored, False for un-ignored, None for no match."""
        return self.rules.verdict(self.above + path.removeprefix(self.prefix))


class _Walker:
    def __init__(self, result: Walk, max_bytes: int, ignore: Sequence[str]) -> None:
        self._result = result
        self._root = result.root
        self._max_bytes = max_bytes
        self._more = IgnoreRules(ignore)

    def run(self) -> None:
        stack: list[tuple[str, tuple[_Rules, ...]]] = [("", tuple(self._rules_above()))]
        while stack:
            prefix, rules = stack.pop()
            folder = self._root / prefix
            try:
                with os.scandir(folder) as entries:
                    listing = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if not prefix:
                    raise InputError(
                        str(self._root), f"cannot be read: {error.strerror}"
                    ) from error
                self._skip(prefix, Skip.UNREADABLE, error.strerror or "")
                continue
            if prefix and any(entry.name == _REPOSITORY for entry in listing):
                rules = tuple(each for each in rules if not each.of_git)
            rules = (*rules, *self._rules_in(folder, prefix))
            if not prefix:
                rules = (*rules, _Rules(self._more, ""))
            for entry in listing:
                path = prefix + entry.name
                if not _is_unicode(entry.name):
                    self._skip(path.encode("utf-8", "backslashreplace").decode(), Skip.BAD_NAME)
                elif self._visit(entry, path, rules):
                    stack.append((path + "/", rules))

    def _visit(self, entry: os.DirEntry[str], path: str, rules: tuple[_Rules, ...]) -> bool:
        """Take or skip a file; True for a folder to walk."""
        try:
            status = entry.stat()
        except FileNotFoundError:
            self._skip(path, Skip.BROKEN_LINK)
            return False
        except OSError as error:
            reason = Skip.SYMLINK_LOOP if error.errno == errno.ELOOP else Skip.UNREADABLE
            self._skip(path, reason, error.strerror or "")
            return False
        is_dir = stat.S_ISDIR(status.st_mode)
        path += "/" if is_dir else ""
        if entry.name == _REPOSITORY or (is_dir and entry.name in IGNORED_DIRS):
            self._skip(path, Skip.DEFAULT_DIR)
        elif _is_ignored(path, rules):
            self._skip(path, Skip.IGNORED)
        elif entry.is_symlink():
            self._skip_link(Path(entry.path), path)
        elif is_dir:
            return True
        elif not stat.S_ISREG(status.st_mode):
            self._skip(path, Skip.SPECIAL)
        elif (reason_by_name := _by_name(entry.name)) is not None:
            self._skip(path, reason_by_name)
        elif status.st_size > self._max_bytes * (
            _NOTEBOOK_SHARE if entry.name.endswith(".ipynb") else 1
        ):
            self._skip(path, Skip.TOO_LARGE, f"{status.st_size} bytes")
        elif status.st_size == 0:
            self._skip(path, Skip.EMPTY)
        else:
            self._result.files.append(
                FoundFile(path, status.st_size, status.st_mtime_ns, stamp_of(status))
            )
        return False

    def _skip_link(self, link: Path, path: str) -> None:
        """Links are never followed: what they lead to is read in its own place, or not ours."""
        target = link.resolve()
        if not target.is_relative_to(self._root):
            self._skip(path, Skip.OUTSIDE)
        elif link.parent.is_relative_to(target):
            self._skip(path, Skip.SYMLINK_LOOP)
        else:
            self._skip(path, Skip.SYMLINK)

    def _rules_above(self) -> Iterator[_Rules]:
        """Rules between the root of the repository and our root, outermost first."""
        folders = [self._root, *self._root.parents]
        tops = [index for index, folder in enumerate(folders) if (folder / _REPOSITORY).exists()]
        if not tops:
            return
        for folder in folders[tops[0] : 0 : -1]:
            above = self._root.relative_to(folder).as_posix() + "/"
            for rules in self._rules_in(folder, ""):
                yield replace(rules, above=above)

    def _rules_in(self, folder: Path, prefix: str) -> Iterator[_Rules]:
        for name in IGNORE_FILES:
            file = folder / name
            try:
                if not file.is_file():
                    continue
                text = file.read_text(encoding="utf-8-sig", errors="replace")
            except OSError as error:
                self._skip(prefix + name, Skip.UNREADABLE, f"ignore rules not used: {error}")
            else:
                yield _Rules(IgnoreRules(text.split("\n")), prefix, of_git=name == _GIT_IGNORE)

    def _skip(self, path: str, reason: Skip, detail: str = "") -> None:
        self._result.skipped.append(Skipped(path, reason, detail))


def stamp_of(status: os.stat_result) -> str:
    """See :class:`FoundFile`."""
    return f"{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}.{status.st_ino}"


def _is_ignored(path: str, rules: tuple[_Rules, ...]) -> bool:
    """The innermost ignore file that says something about the path decides."""
    for each in reversed(rules):
        verdict = each.verdict(path)
        if verdict is not None:
            return verdict
    return False


def _by_name(name: str) -> Skip | None:
    if name in _LOCK_FILES:
        return Skip.LOCK_FILE
    if _GENERATED_NAME.search(name):
        return Skip.GENERATED
    if Path(name).suffix.lower() in _DATA_SUFFIXES:
        return Skip.DATA
    return None


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_source(root: Path, path: str) -> bytes | Skipped:
    """The bytes of a found file, or why it is not source code after all.

    A notebook is read as the script of its cells.
    """
    try:
        data = (root / path).read_bytes()
    except OSError as error:
        return Skipped(path, Skip.UNREADABLE, error.strerror or "")
    if path.endswith(".ipynb"):
        data = notebook_script(data) or data
    reason = _by_content(path, data)
    return data if reason is None else Skipped(path, reason)


def _by_content(path: str, data: bytes) -> Skip | None:
    if data.startswith(_UTF16):
        return Skip.UTF16
    if b"\0" in data[:_SNIFFED]:
        return Skip.BINARY
    if not data.strip():
        return Skip.EMPTY
    if _is_generated(data[:_GENERATED_WITHIN]):
        return Skip.GENERATED
    lines = data.splitlines()
    if max(map(len, lines)) > _LONGEST_LINE:
        return Skip.MINIFIED
    # Prose may have a paragraph a line; code does not.
    is_prose = detect(path, data[:128]) in ("markdown", "rst", "text", "tex", UNKNOWN)
    if not is_prose and len(data) / len(lines) > _LONGEST_MEAN_LINE:
        return Skip.MINIFIED
    return None


def _is_generated(head: bytes) -> bool:
    for match in _GENERATED_MARK.finditer(head):
        start = head.rfind(b"\n", 0, match.end()) + 1
        if head[start:].lstrip().startswith(_COMMENT_START):
            return True
    return False

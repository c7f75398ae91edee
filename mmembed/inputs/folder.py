"""Folders of media: find the files, and the items that each of them holds."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, file_digest
from pathlib import Path

from mmembed.errors import InputError
from mmembed.inputs.document import iter_pages
from mmembed.inputs.items import (
    DOCUMENT_SUFFIXES,
    IMAGE_SUFFIXES,
    TEXT_SUFFIXES,
    VIDEO_SUFFIXES,
    Item,
    TextPart,
    parse_item,
)
from mmembed.inputs.source import local_path, unreadable
from mmembed.inputs.textfile import iter_passages

__all__ = ["SUFFIXES", "OnError", "SourceFile", "items_of", "scan", "walk"]

OnError = Callable[[InputError], None]

SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | DOCUMENT_SUFFIXES | TEXT_SUFFIXES
"""Suffixes, in lower case, of the files that :func:`scan` finds in a folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """One file as it was when it was found; enough to tell whether it has changed since.

    Attributes:
        path: absolute path.
        size: bytes.
        mtime_ns: time of the last change, in nanoseconds since the epoch.
    """

    path: Path
    size: int
    mtime_ns: int

    @cached_property
    def content_hash(self) -> str:
        """BLAKE2b digest (32 hex digits) of the bytes; the file is read at the first access.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            with self.path.open("rb") as stream:
                return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise unreadable(self.path, error) from error


def scan(
    paths: str | Path | Iterable[str | Path],
    *,
    follow_symlinks: bool = False,
    on_error: OnError | None = None,
) -> Iterator[SourceFile]:
    """The media and text files under ``paths``, lazily and always in the same order.

    A folder gives its files by name, then its subfolders by name. Hidden files and folders, and
    files of other kinds, are passed over, unless a path names one of them itself. A folder is
    entered once, however many paths or links lead to it.

    Args:
        paths: files and folders; ``~`` is expanded.
        follow_symlinks: enter linked folders and read linked files. The paths given are always
            followed.
        on_error: called for each path that cannot be read; the scan goes on. Without it, the
            error is logged as a warning.
    """
    report = on_error or _log_error
    seen: set[tuple[int, int]] = set()
    for root in [paths] if isinstance(paths, (str, Path)) else paths:
        try:
            path = Path(root).expanduser().absolute()
            path = path.resolve() if ".." in path.parts else path
            status = path.stat()
        except FileNotFoundError:
            report(InputError(str(root), "does not exist"))
        except (OSError, RuntimeError, ValueError) as error:
            report(unreadable(root, error))
        else:
            if stat.S_ISDIR(status.st_mode):
                yield from _scan_folder(path, follow_symlinks, report, seen)
            else:
                yield from _named_file(path, status, report)


def items_of(source: SourceFile) -> Iterator[tuple[str, Item]]:
    """The items that one file holds, each with what makes its id: ``path + suffix``.

    An image or clip is one item with the suffix ``""``, a PDF is one item a page (``#page=3``),
    and a text file is one item a passage (``#p=1``).

    Raises:
        InputError: the file cannot be opened; nothing has been yielded by then. A damaged page or
            image shows only when its item is decoded.
    """
    suffix = source.path.suffix.lower()
    if suffix in DOCUMENT_SUFFIXES:
        for number, item in enumerate(iter_pages(source.path), start=1):
            yield f"#page={number}", item
    elif suffix in TEXT_SUFFIXES:
        for number, passage in enumerate(iter_passages(source.path), start=1):
            id_suffix = f"#p={number}"
            yield id_suffix, Item((TextPart(passage),), name=f"{source.path}{id_suffix}")
    else:
        item = parse_item(local_path(source.path))
        yield "", item


def walk(
    paths: str | Path | Iterable[str | Path],
    *,
    follow_symlinks: bool = False,
    on_error: OnError | None = None,
) -> Iterator[tuple[str, Item]]:
    """Every item under ``paths`` with its id, for work that needs no record of the files.

    Args: as :func:`scan`; ``on_error`` also hears of files whose items cannot be listed.
    """
    report = on_error or _log_error
    for source in scan(paths, follow_symlinks=follow_symlinks, on_error=report):
        try:
            for id_suffix, item in items_of(source):
                yield f"{source.path}{id_suffix}", item
        except InputError as error:
            report(error)


def _log_error(error: InputError) -> None:
    _log.warning("skipped: %s", error)


def _named_file(path: Path, status: os.stat_result, report: OnError) -> Iterator[SourceFile]:
    """A file that the caller named, so that passing over it in silence would be wrong."""
    if not stat.S_ISREG(status.st_mode):
        report(InputError(str(path), "is not a regular file", "give a file or a folder"))
    elif path.suffix.lower() not in SUFFIXES:
        kinds = " ".join(sorted(SUFFIXES))
        report(InputError(str(path), f"has an unknown suffix {path.suffix!r}", f"known: {kinds}"))
    else:
        yield SourceFile(path, status.st_size, status.st_mtime_ns)


def _scan_folder(
    root: Path, follow_symlinks: bool, report: OnError, seen: set[tuple[int, int]]
) -> Iterator[SourceFile]:
    # A stack, because folders may be nested deeper than Python's recursion limit.
    stack = [root]
    while stack:
        folder = stack.pop()
        try:
            status = folder.stat()
            if (identity := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            report(unreadable(folder, error))
            continue
        subfolders = []
        for entry in visible:
            try:
                if entry.is_dir(follow_symlinks=follow_symlinks):
                    subfolders.append(folder / entry.name)
                elif _is_wanted(entry, follow_symlinks):
                    status = entry.stat(follow_symlinks=follow_symlinks)
                    path = folder / entry.name
                    yield SourceFile(path, status.st_size, status.st_mtime_ns)
            except OSError as error:
                report(unreadable(folder / entry.name, error))
        stack.extend(reversed(subfolders))


def _is_wanted(entry: os.DirEntry[str], follow_symlinks: bool) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122 - many names
        return False
    if follow_symlinks and entry.is_symlink():
        entry.stat()  # A broken link or a loop of links is an error to report, not a non-file.
    return entry.is_file(follow_symlinks=follow_symlinks)

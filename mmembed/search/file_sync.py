"""Keeping an index the same as files on disk, touching only what changed.

What the store knows about a file lies in its rows; nothing else is remembered. A file is complete
when its rows have one content hash and are as many as its last row says, so a process may be killed
at any moment: the next run finishes the files that it left half done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from mmembed.errors import InputError
from mmembed.inputs.folder import SourceFile, items_of, scan
from mmembed.inputs.items import Item
from mmembed.search.filters import And, Compare, Filter, In, IsNull, Not, Or
from mmembed.search.identity import file_fields
from mmembed.search.layout import FIELDS, Location, user_metadata
from mmembed.search.model import EmbeddingModel
from mmembed.search.results import AddReport
from mmembed.search.store import Record, Value, VectorStore
from mmembed.search.writer import News, PendingItem, RowWriter, clean_metadata

__all__ = ["FileMetadata", "FileSync"]

FileMetadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any] | None]"

_T = TypeVar("_T")

_IS_FILE = Not(IsNull("part"))
_STATE_FIELDS = ("path", "part", "content_hash", "size", "mtime_ns", "file_items")
_COPIES_AT_ONCE = 64
_DELETES_AT_ONCE = 100


@dataclass(slots=True)
class _FileState:
    """What the rows of one file say about it."""

    content_hash: str
    size: int
    mtime_ns: int
    parts: list[str] = field(default_factory=list)
    expected: int | None = None  # number of rows, once the last one is there
    mixed: bool = False  # rows of several versions: a run was killed between writing and deleting

    @property
    def complete(self) -> bool:
        return not self.mixed and self.expected == len(self.parts)

    def is_of(self, source: SourceFile) -> bool:
        return (self.size, self.mtime_ns) == (source.size, source.mtime_ns)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file whose content the store has already, under ``template``: its vectors are reused."""

    source: SourceFile
    key: str
    template: str


class FileSync:
    """One run over some files and folders; the caller holds the store's write lock.

    Args:
        store: the store to bring up to date.
        location: how paths become keys.
        writer: takes the rows.
        report: where unchanged and deleted items are counted.
        metadata: for every file, or a function of its path; None keeps what a file has.
    """

    def __init__(
        self,
        store: VectorStore,
        location: Location,
        writer: RowWriter,
        report: AddReport,
        metadata: FileMetadata | None,
    ) -> None:
        self._store = store
        self._location = location
        self._writer = writer
        self._report = report
        self._metadata = metadata
        self._known = _read_states(store)
        # A file is read by its suffix, so a photo under a video's name is no copy of the photo.
        self._by_content = {
            (state.content_hash, Path(key).suffix.lower()): key
            for key, state in self._known.items()
            if state.complete
        }
        self._seen: set[str] = set()
        self._unreadable: list[Path] = []
        self._copies: list[_Copy] = []
        self._rewritten: dict[str, str] = {}  # key -> content hash of the rows that may stay

    def run(self, model: EmbeddingModel, roots: Sequence[Path]) -> None:
        """Add what is new, embed again what changed, delete what is gone below ``roots``."""
        self._writer.encode(model, self._plan(roots))
        orphans = [
            each for some in _chunks(self._copies, _COPIES_AT_ONCE) for each in self._copy(some)
        ]
        # The file to copy from could not be read, or was itself overwritten in this run.
        again = (item for copy in orphans for item in self._embed(copy.source, copy.key))
        self._writer.encode(model, again)
        self._delete_stale_rows()
        self._delete_vanished_files(roots)

    def _plan(self, roots: Sequence[Path]) -> Iterator[PendingItem | InputError]:
        errors: list[InputError] = []
        for source in scan(roots, on_error=errors.append):
            yield from self._scan_errors(errors)
            key = self._location.key_of(source.path)
            if key not in self._seen:
                self._seen.add(key)
                yield from self._plan_file(source, key)
        yield from self._scan_errors(errors)

    def _scan_errors(self, errors: list[InputError]) -> Iterator[InputError]:
        self._unreadable += [_absolute(Path(error.source)) for error in errors]
        yield from errors
        errors.clear()

    def _plan_file(self, source: SourceFile, key: str) -> Iterator[PendingItem | InputError]:
        state = self._known.get(key)
        if state is not None and state.complete and state.is_of(source) and self._metadata is None:
            self._report.unchanged += len(state.parts)
            return
        try:
            content_hash = source.content_hash
        except InputError as error:
            yield error
            return
        if state is not None and state.complete and state.content_hash == content_hash:
            self._copies.append(_Copy(source, key, template=key))
        elif (content := (content_hash, source.path.suffix.lower())) in self._by_content:
            self._copies.append(_Copy(source, key, template=self._by_content[content]))
        else:
            self._by_content[content] = key
            yield from self._embed(source, key)

    def _embed(self, source: SourceFile, key: str) -> Iterator[PendingItem | InputError]:
        state = self._known.get(key)
        self._note_rewrite(source, key)
        try:
            metadata = self._metadata_of(source, key)
            done = self._done_parts(source, state)
            for part, item, count in _counted(items_of(source)):
                if part in done:
                    self._report.unchanged += 1
                    continue
                fields = file_fields(source, key, part, item) | metadata
                if count is not None:
                    fields["file_items"] = count
                yield PendingItem(f"{key}{part}", item, fields, self._news_of(key, part))
        except InputError as error:
            yield error

    def _done_parts(self, source: SourceFile, state: _FileState | None) -> frozenset[str]:
        """Parts that a killed run, or one with errors, has left finished."""
        if state is None or state.mixed or self._metadata is not None or not state.is_of(source):
            return frozenset()
        return frozenset(state.parts) if state.content_hash == source.content_hash else frozenset()

    def _copy(self, copies: Sequence[_Copy]) -> list[_Copy]:
        """Give files the rows of others with the same content; returns those it could not."""
        templates = In("path", tuple({copy.template for copy in copies}))
        rows: dict[str, list[Record]] = {}
        for record in self._store.scan(And((templates, _IS_FILE)), vectors=True):
            rows.setdefault(str(record.fields["path"]), []).append(record)
        orphans = []
        for copy in copies:
            wanted = copy.source.content_hash
            found = [
                row
                for row in rows.get(copy.template, [])
                if row.fields.get("content_hash") == wanted
            ]
            if not any(row.fields.get("file_items") == len(found) for row in found):
                orphans.append(copy)
                continue
            try:
                self._write_copy(copy, found)
            except InputError as error:
                self._writer.skip(error)
            self._writer.step()
        self._writer.flush()
        return orphans

    def _write_copy(self, copy: _Copy, rows: Sequence[Record]) -> None:
        self._note_rewrite(copy.source, copy.key)
        metadata = self._metadata_of(copy.source, copy.key)
        stamp: dict[str, Value] = {
            "path": copy.key,
            "size": copy.source.size,
            "mtime_ns": copy.source.mtime_ns,
        }
        for row in rows:
            part = str(row.fields["part"])
            news = self._news_of(copy.key, part)
            if copy.key == copy.template and user_metadata(row) == metadata:
                if stamp.items() <= row.fields.items():
                    self._report.unchanged += 1
                    continue
                news = "unchanged"  # a new time alone is written down, but is no news
            kept = {name: value for name, value in row.fields.items() if name in FIELDS}
            fields = {**kept, **stamp, **metadata}
            self._writer.write(replace(row, id=f"{copy.key}{part}", fields=fields), news)

    def _news_of(self, key: str, part: str) -> News:
        state = self._known.get(key)
        return "updated" if state is not None and part in state.parts else "added"

    def _note_rewrite(self, source: SourceFile, key: str) -> None:
        if key in self._known:
            self._rewritten[key] = source.content_hash

    def _metadata_of(self, source: SourceFile, key: str) -> dict[str, Value]:
        given = self._metadata(source.path) if callable(self._metadata) else self._metadata
        cleaned = clean_metadata(given)
        if cleaned is not None:
            return {name: value for name, value in cleaned.items() if value is not None}
        names = [name for name in self._store.fields if name not in FIELDS]
        if key not in self._known or not names:
            return {}
        rows = self._store.scan(And((Compare("path", "==", key), _IS_FILE)), fields=names)
        return user_metadata(next(rows))

    def _delete_stale_rows(self) -> None:
        """Rows of older contents, e.g. of pages that a document no longer has."""
        stale: list[Filter] = [
            And((Compare("path", "==", key), Not(Compare("content_hash", "==", content_hash))))
            for key, content_hash in self._rewritten.items()
        ]
        for some in _chunks(stale, _DELETES_AT_ONCE):
            self._report.deleted += self._store.delete(And((_IS_FILE, Or(tuple(some)))))

    def _delete_vanished_files(self, roots: Sequence[Path]) -> None:
        tops = [_absolute(root) for root in roots]
        gone = [
            key
            for key in self._known.keys() - self._seen
            if _is_under(Path(self._location.path_of(key)), tops)
            # What cannot be looked into may still be there.
            and not _is_under(Path(self._location.path_of(key)), self._unreadable)
        ]
        for some in _chunks(sorted(gone), _DELETES_AT_ONCE):
            self._report.deleted += self._store.delete(And((_IS_FILE, In("path", tuple(some)))))


def _read_states(store: VectorStore) -> dict[str, _FileState]:
    states: dict[str, _FileState] = {}
    for record in store.scan(_IS_FILE, fields=_STATE_FIELDS):
        row: Mapping[str, Any] = record.fields
        state = states.get(row["path"])
        if state is None:
            state = _FileState(row["content_hash"], row["size"], row["mtime_ns"])
            states[row["path"]] = state
        state.mixed |= (state.content_hash, state.size, state.mtime_ns) != (
            row["content_hash"],
            row["size"],
            row["mtime_ns"],
        )
        state.parts.append(row["part"])
        state.expected = row.get("file_items", state.expected)
    return states


def _counted(parts: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Item, int | None]]:
    """The parts of a file; the last one comes with their number."""
    count = 0
    held: tuple[str, Item] | None = None
    for part in parts:
        if held is not None:
            yield *held, None
        held = part
        count += 1
    if held is not None:
        yield *held, count


def _absolute(root: Path) -> Path:
    # As the scan makes its paths absolute.
    path = root.expanduser().absolute()
    return path.resolve() if ".." in path.parts else path


def _is_under(path: Path, tops: Iterable[Path]) -> bool:
    return any(path.is_relative_to(top) for top in tops)


def _chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))

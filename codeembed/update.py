"""Bringing the files and chunks of an index in line with its folder. No model is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from codeembed.collect import ChunkSettings, SourceFile, chunk_files, content_hash
from codeembed.database import ChunkRow, CodeStore, FileRow
from codeembed.layout import chunk_limit, content_of
from codeembed.reading import Reading
from codeembed.results import IndexReport
from codeembed.walk import FoundFile, Skip, Skipped, Walk, read_source

__all__ = ["Progress", "update_files"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""

_WRITE_FILES = 64
_WRITE_SECONDS = 1.0
# A file system keeps times in steps of up to two seconds: a stamp this young may hide a change.
_SETTLED_NS = 2_000_000_000


def update_files(
    found: Walk,
    store: CodeStore,
    reading: Reading,
    workers: int | None,
    progress: Progress,
) -> IndexReport:
    """Write new and changed files, delete those that are gone.

    The caller holds the right to write. Files change whole, in one transaction each, so that a kill
    leaves every file either as it was or as it is.
    """
    report = IndexReport(skipped=list(found.skipped))
    known = store.files()
    changed = _compare(found, known, store, report, progress)
    settings = ChunkSettings(
        reading.count_tokens, chunk_limit(reading.max_tokens), picklable=reading.portable
    )
    writer = _Writer(store, known, report)
    paths = [file.path for file in changed]
    sources = chunk_files(found.root, paths, settings, workers)
    present = {file.path for file in found.files}
    for done, (file, source) in enumerate(zip(changed, sources, strict=True)):
        progress("cutting", done, len(changed))
        if isinstance(source, Skipped):
            report.skipped.append(source)
            if source.reason is Skip.UNREADABLE:
                # It was there a moment ago, or may be readable later: it has no state to keep.
                present.discard(source.path)
                continue
            writer.leave_out(file, source)
        else:
            writer.take(file, source)
    writer.flush()
    gone = sorted(known.keys() - present)
    if gone:
        store.remove(gone)
        report.removed = sum(not known[path].left_out for path in gone)
    if gone or changed:
        store.drop_unused_vectors()
    return report


def _compare(
    found: Walk,
    known: dict[str, FileRow],
    store: CodeStore,
    report: IndexReport,
    progress: Progress,
) -> list[FoundFile]:
    """The files that are new or changed: by what the system says of them, then by content."""
    changed: list[FoundFile] = []
    settled: list[FileRow] = []
    for done, file in enumerate(found.files):
        before = known.get(file.path)
        if before is None:
            changed.append(file)
            continue
        if before.stamp != file.stamp:
            progress("reading", done, len(found.files))
            data = read_source(found.root, file.path)
            raw = None if isinstance(data, Skipped) else content_hash(data)
            if raw != before.hash or before.left_out:
                changed.append(file)
                continue
            settled.append(FileRow(file.path, before.hash, file.size, _stamp(file)))
        if before.left_out:
            report.skipped.append(Skipped(file.path, Skip(before.left_out), before.detail))
        else:
            report.unchanged += 1
    if settled:
        store.restamp(settled)
    return changed


def _stamp(file: FoundFile) -> str:
    """The stamp to keep: none while the file may change without the stamp changing."""
    return file.stamp if time.time_ns() - file.mtime_ns > _SETTLED_NS else ""


class _Writer:
    """Writes files in batches."""

    def __init__(self, store: CodeStore, known: dict[str, FileRow], report: IndexReport) -> None:
        self._store = store
        self._known = known
        self._report = report
        self._waiting: list[tuple[FileRow, list[ChunkRow]]] = []
        self._since = time.monotonic()

    def take(self, file: FoundFile, source: SourceFile) -> None:
        """Write a file's chunks."""
        report, chunked = self._report, source.chunked
        before = self._known.get(source.path)
        if before is not None and not before.left_out:
            report.changed += 1
        else:
            report.added += 1
        report.by_language[chunked.language] += 1
        report.by_method[str(chunked.method)] += 1
        if not chunked.is_utf8:
            report.not_utf8.append(source.path)
        # What was read may be younger than what the walk saw.
        stamp = _stamp(file) if source.stamp == file.stamp else ""
        row = FileRow(source.path, source.hash, source.size, stamp)
        self._put(row, list(_rows(source)))

    def leave_out(self, file: FoundFile, skipped: Skipped) -> None:
        """Note a file that holds nothing to index, so that it is not read again."""
        row = FileRow(file.path, "", file.size, _stamp(file), str(skipped.reason), skipped.detail)
        self._put(row, [])

    def _put(self, row: FileRow, chunks: list[ChunkRow]) -> None:
        self._waiting.append((row, chunks))
        late = time.monotonic() - self._since > _WRITE_SECONDS
        if late or len(self._waiting) >= _WRITE_FILES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            hashes = [chunk.hash for _, chunks in waiting for chunk in chunks]
            known = self._store.having_vectors(hashes)
            self._report.reused += sum(each in known for each in hashes)
            self._store.replace(waiting)
        self._since = time.monotonic()


def _rows(source: SourceFile) -> Iterable[ChunkRow]:
    chunked = source.chunked
    for number, chunk in enumerate([*chunked.chunks, *chunked.skeletons]):
        yield ChunkRow(
            id=0,
            path=source.path,
            number=number,
            start_line=chunk.start_line,
            end_line=chunk.end_line,
            symbol=chunk.symbol,
            kind=chunk.kind,
            breadcrumb=chunk.breadcrumb,
            language=source.chunked.language,
            symbols=chunk.symbols,
            kinds=chunk.kinds,
            hash=content_hash(content_of(chunk.breadcrumb, chunk.text).encode()),
            text=chunk.text,
        )

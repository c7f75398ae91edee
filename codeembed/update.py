"""Bringing an index in line with its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from codeembed.catalog import Catalog
from codeembed.collect import ChunkSettings, chunk_files, content_hash
from codeembed.layout import chunk_limit
from codeembed.results import IndexReport, save_report
from codeembed.tokens import CodeModel, portable_counter
from codeembed.walk import Skipped, Walk, read_source
from codeembed.writer import ChunkWriter, KnownFile, delete_rows, known_files
from mmembed.search.store import VectorStore

__all__ = ["Progress", "update_store"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


def update_store(
    found: Walk,
    folder: Path,
    store: VectorStore,
    load_model: Callable[[], CodeModel],
    catalog: Catalog,
    workers: int | None,
    progress: Progress | None,
) -> IndexReport:
    """Write new and changed files, delete those that are gone, refresh and save the catalog.

    The caller holds the store's write lock. The model is loaded only if something changed.
    """
    start = time.monotonic()
    say = progress or _silent
    report = IndexReport(skipped=list(found.skipped))
    known, ids_by_chunk = known_files(store)
    present, changed = _compare(found, known, report, say)
    if changed:
        model = load_model()
        writer = ChunkWriter(store, model, ids_by_chunk, report)
        sources = chunk_files(found.root, changed, _settings(model), workers)
        for done, source in enumerate(sources):
            say("embedding", done, len(changed))
            if isinstance(source, Skipped):
                # It was there a moment ago.
                report.skipped.append(source)
                present.discard(source.path)
            else:
                writer.add(source, known.get(source.path, KnownFile()))
        writer.flush()
    gone = known.keys() - present
    delete_rows(store, {id_ for path in gone for id_ in known[path].ids})
    report.removed = len(gone)
    if changed or gone:
        say("finishing", len(changed), len(changed))
        store.optimize()
        known, _ = known_files(store)
    if catalog.refresh(store):
        catalog.save()
    report.files = len(known)
    report.chunks = sum(len(each.ids) for each in known.values())
    report.bytes = sum(each.size for each in known.values())
    report.seconds = time.monotonic() - start
    save_report(folder, report)
    return report


def _compare(
    found: Walk, known: dict[str, KnownFile], report: IndexReport, say: Progress
) -> tuple[set[str], list[str]]:
    """Paths that are source code, and those among them that are new or changed.

    By content: times lie after a checkout, and hashing costs less than the walk.
    """
    present: set[str] = set()
    changed: list[str] = []
    for done, file in enumerate(found.files):
        say("reading", done, len(found.files))
        data = read_source(found.root, file.path)
        if isinstance(data, Skipped):
            report.skipped.append(data)
            continue
        present.add(file.path)
        before = known.get(file.path)
        if before is not None and before.is_complete(content_hash(data)):
            report.unchanged += 1
        else:
            changed.append(file.path)
    return present, changed


def _settings(model: CodeModel) -> ChunkSettings:
    limit = chunk_limit(model.max_tokens)
    counter = portable_counter(model)
    if counter is None:
        return ChunkSettings(model.count_tokens, limit, picklable=False)
    return ChunkSettings(counter, limit)


def _silent(_what: str, _done: int, _total: int) -> None:
    pass

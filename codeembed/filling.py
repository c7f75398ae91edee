"""Giving vectors to the chunks that have none, in the background of everything else.

Vectors belong to content, so a filler may go on while files change under it: what it embeds is
right wherever that content is, and what has gone is dropped by the next update.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from codeembed.database import ChunkRow, CodeStore
from codeembed.layout import embedded_texts
from codeembed.tokens import CodeModel
from mmembed.search.lock import WriterLock
from mmembed.search.store import StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codeembed.results import IndexReport
    from codeembed.update import Progress

__all__ = ["fill", "filling"]

_BATCH = 256
_FOLDER = "filling"


@contextmanager
def filling(folder: Path) -> Iterator[bool]:
    """Hold the right to fill; false where another process has it."""
    place = folder / _FOLDER
    place.mkdir(exist_ok=True)
    lock = WriterLock(place)
    try:
        context = lock.held()
        context.__enter__()
    except StoreLockedError:
        yield False
        return
    try:
        yield True
    finally:
        context.__exit__(None, None, None)


def fill(
    store: CodeStore,
    model: CodeModel,
    report: IndexReport,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Embed what has no vector, batch by batch; each batch is kept as soon as it is done.

    A chunk that the model refuses is told in the report, keeps being found by its words, and is
    tried again by the next call.
    """
    refused: set[str] = set()
    total = store.count()[3]
    done = 0
    while not stop():
        found = store.without_vector(_BATCH + len(refused))
        chunks = [chunk for chunk in found if chunk.hash not in refused][:_BATCH]
        if not chunks:
            return
        progress("embedding", done, max(total, done + len(chunks)))
        refused |= _embed(chunks, store, model, report)
        done += len(chunks)


def _embed(
    chunks: list[ChunkRow], store: CodeStore, model: CodeModel, report: IndexReport
) -> set[str]:
    """Embed chunks; returns the hashes of those that the model refused."""
    vectors = {}
    refused = set()
    texts = embedded_texts(chunks, model)
    results = model.encode_stream(texts, role="document")
    for chunk, encoded in zip(chunks, results, strict=True):
        if encoded.vector is not None:
            vectors[chunk.hash] = encoded.vector
        else:
            refused.add(chunk.hash)
            report.failed.append(f"{chunk.path}:{chunk.start_line}: {encoded.error}")
    store.add_vectors(vectors)
    report.embedded += len(vectors)
    return refused

"""Read and chunk many files, in worker processes when there are many."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from codeembed.chunk import ChunkedFile, Chunker, CountTokens
from codeembed.walk import Skipped, read_source, stamp_of

__all__ = ["ChunkSettings", "SourceFile", "chunk_files", "content_hash"]

logger = logging.getLogger(__name__)

# Starting a process and importing the grammars costs about as much as chunking this many files.
_MIN_FILES = 200
_BATCH = 32
_MAX_WORKERS = 8


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """How to cut: the counter, picklable where worker processes shall be used, and the limit."""

    count_tokens: CountTokens
    max_tokens: int
    picklable: bool = True


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read and cut: path relative to the root, hash and size of its bytes.

    ``stamp`` is that of the file before it was read; see :class:`codeembed.walk.FoundFile`.
    """

    path: str
    hash: str
    size: int
    stamp: str
    chunked: ChunkedFile


def content_hash(data: bytes) -> str:
    """32 hexadecimal digits that change when the bytes do."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def chunk_files(
    root: Path,
    paths: Sequence[str],
    settings: ChunkSettings,
    workers: int | None = None,
) -> Iterator[SourceFile | Skipped]:
    """Read and cut files, in the order of ``paths`` whatever the number of processes.

    Args:
        root: What the paths are relative to.
        paths: Files to read; one that has gone or is no source code gives why.
        settings: How to cut.
        workers: Processes; by default one a core if there are enough files, else none.
    """
    if workers is None:
        enough = len(paths) > _MIN_FILES and settings.picklable
        workers = min(_cores(), _MAX_WORKERS) if enough else 1
    done = 0
    if workers > 1:
        try:
            # Threads would not help: tree-sitter holds the interpreter's lock.
            for result in _in_processes(root, paths, settings, workers):
                yield result
                done += 1
        except BrokenProcessPool:
            # A script without a `__main__` guard, or a worker that was killed.
            logger.warning("worker processes ended early; going on without them")
    chunker = Chunker(settings.count_tokens, settings.max_tokens)
    for path in paths[done:]:
        yield _chunk_file(root, path, chunker)


def _in_processes(
    root: Path, paths: Sequence[str], settings: ChunkSettings, workers: int
) -> Iterator[SourceFile | Skipped]:
    batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(settings.count_tokens, settings.max_tokens),
    )
    waiting: deque[Future[list[SourceFile | Skipped]]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_chunk_batch, root, batch))
            # A bounded number of results in memory, however slow their reader is.
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_worker_chunker: Chunker | None = None


def _start_worker(count_tokens: CountTokens, max_tokens: int) -> None:
    global _worker_chunker
    # Each worker is one core's share; more threads would only fight.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker_chunker = Chunker(count_tokens, max_tokens)


def _chunk_batch(root: Path, paths: Sequence[str]) -> list[SourceFile | Skipped]:
    assert _worker_chunker is not None  # _start_worker ran
    return [_chunk_file(root, path, _worker_chunker) for path in paths]


def _chunk_file(root: Path, path: str, chunker: Chunker) -> SourceFile | Skipped:
    stamp = _stamp(root / path)
    data = read_source(root, path)
    if isinstance(data, Skipped):
        return data
    return SourceFile(path, content_hash(data), len(data), stamp, chunker.chunk(data, path))


def _stamp(file: Path) -> str:
    try:
        return stamp_of(file.stat())
    except OSError:
        return ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""A code index on disk: one SQLite file of files, chunks and vectors.

SQLite is at hand in every Python and opens in a millisecond, a file's chunks change in one
transaction, and readers never wait for a writer. Vectors belong to the content that they were made
of, not to a place: whatever was embedded before, wherever it was, is never embedded again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codeembed.tokenize import identifiers
from mmembed.errors import InputError
from mmembed.search.lock import WriterLock

__all__ = ["ChunkRow", "CodeStore", "FileRow", "Vectors"]

_FILE_NAME = "code.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, hash TEXT NOT NULL, size INTEGER NOT NULL, stamp TEXT NOT NULL,
    left_out TEXT NOT NULL, detail TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, number INTEGER NOT NULL,
    start_line INTEGER NOT NULL, end_line INTEGER NOT NULL, symbol TEXT NOT NULL,
    kind TEXT NOT NULL, breadcrumb TEXT NOT NULL, language TEXT NOT NULL, symbols TEXT NOT NULL,
    kinds TEXT NOT NULL, hash TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_path ON chunks (path);
CREATE INDEX IF NOT EXISTS chunks_hash ON chunks (hash);
CREATE TABLE IF NOT EXISTS symbols (
    name TEXT NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (name, chunk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS symbols_chunk ON symbols (chunk);
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE, dense BLOB NOT NULL
);
"""
_COLUMNS = (
    "id, path, number, start_line, end_line, symbol, kind, breadcrumb, language, symbols, kinds, "
    "hash, text"
)
_WAIT_SECONDS = 60.0
_PER_QUERY = 500
_SEPARATOR = "\x1f"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file as it was when it was read.

    Attributes:
        path: Relative to the root, with ``/``.
        hash: Of its bytes.
        size: In bytes.
        stamp: Of its times and inode; while they stay, the content is not read again.
        left_out: Why it has no chunks, or ``""``.
        detail: More on that.
    """

    path: str
    hash: str
    size: int
    stamp: str
    left_out: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk; see :class:`codeembed.chunk.Chunk` for what the fields mean.

    Attributes:
        id: Never given twice, so that one id is one content for ever; 0 before it is stored.
        number: Place in its file.
        hash: Of what the model reads.
    """

    id: int
    path: str
    number: int
    start_line: int
    end_line: int
    symbol: str
    kind: str
    breadcrumb: str
    language: str
    symbols: tuple[str, ...]
    kinds: tuple[str, ...]
    hash: str
    text: str


class CodeStore:
    """The database of one index. Usable from many threads, one at a time.

    Args:
        folder: Where the index is.
        create: Make the folder and the file where they are missing.

    Raises:
        FileNotFoundError: there is none and ``create`` is false.
        InputError: the file is damaged.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self._folder = folder
        file = folder / _FILE_NAME
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        elif not file.is_file():
            raise FileNotFoundError(f"{folder}: holds no code index")
        self._thread = threading.RLock()
        self._writer = WriterLock(folder)
        try:
            self._database = _connect(file, create)
        except sqlite3.DatabaseError as error:
            raise InputError(
                str(file), f"is damaged: {error}", f"delete {folder} and index again"
            ) from error

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether an index was finished being created in this folder."""
        file = folder / _FILE_NAME
        if not file.is_file() or not file.stat().st_size:
            return False
        with suppress(sqlite3.DatabaseError, InputError, FileNotFoundError):
            store = CodeStore(folder)
            try:
                return bool(store.meta)
            finally:
                store.close()
        return True  # opening it will say what is wrong

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to change files and chunks; vectors may be added without.

        Raises:
            StoreLockedError: another process or thread holds it.
        """
        with self._writer.held():
            yield

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._thread:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _all(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._thread:
            return self._database.execute(query, values).fetchall()

    @property
    def meta(self) -> dict[str, str]:
        """What was written about the index."""
        return {str(key): str(value) for key, value in self._all("SELECT key, value FROM meta")}

    def describe(self, meta: Mapping[str, str]) -> None:
        """Write more about the index."""
        with self._changing() as database:
            database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())

    def files(self) -> dict[str, FileRow]:
        """Everything that was read, by path, with what was left out."""
        rows = self._all("SELECT path, hash, size, stamp, left_out, detail FROM files")
        return {str(row[0]): FileRow(*row) for row in rows}

    def restamp(self, files: Iterable[FileRow]) -> None:
        """Note the times of files whose content is as it was."""
        with self._changing() as database:
            database.executemany(
                "UPDATE files SET stamp = ? WHERE path = ?", [(f.stamp, f.path) for f in files]
            )

    def replace(self, files: Sequence[tuple[FileRow, Sequence[ChunkRow]]]) -> None:
        """Put files with their chunks in the place of what was there, all of them or none."""
        with self._changing() as database:
            _forget(database, [file.path for file, _ in files])
            database.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
                [(f.path, f.hash, f.size, f.stamp, f.left_out, f.detail) for f, _ in files],
            )
            insert = f"INSERT INTO chunks VALUES ({', '.join('?' * 13)})"
            names: list[tuple[str, int]] = []
            for chunk in (chunk for _, chunks in files for chunk in chunks):
                number = database.execute(insert, _values(chunk)).lastrowid
                assert number is not None
                parts = {part for each in chunk.symbols for part in identifiers(each.lower())}
                names += [(part, number) for part in parts]
            database.executemany("INSERT INTO symbols VALUES (?, ?)", names)

    def remove(self, paths: Sequence[str]) -> None:
        """Forget files and their chunks, all of them or none."""
        with self._changing() as database:
            _forget(database, paths)

    def drop_unused_vectors(self) -> None:
        """Forget vectors of content that is nowhere any more."""
        with self._changing() as database:
            database.execute("DELETE FROM vectors WHERE hash NOT IN (SELECT hash FROM chunks)")

    def count(self) -> tuple[int, int, int, int]:
        """Files with chunks, their bytes, chunks, and chunks without a vector."""
        files = self._all("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM files WHERE left_out = ''")
        chunks = self._all("SELECT COUNT(*) FROM chunks")
        waiting = self._all(
            "SELECT COUNT(*) FROM chunks WHERE hash NOT IN (SELECT hash FROM vectors)"
        )
        return (*files[0], chunks[0][0], waiting[0][0])

    def chunk_ids(self) -> npt.NDArray[np.int64]:
        """``(n,)``: ids of all chunks, ascending."""
        rows = self._all("SELECT id FROM chunks ORDER BY id")
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def chunks(self, ids: Sequence[int]) -> Iterator[ChunkRow]:
        """Chunks by id, ascending; those that are gone are left out."""
        ordered = sorted(ids)
        for start in range(0, len(ordered), _PER_QUERY):
            part = ordered[start : start + _PER_QUERY]
            marks = ", ".join("?" * len(part))
            found = self._all(
                f"SELECT {_COLUMNS} FROM chunks WHERE id IN ({marks}) ORDER BY id", part
            )
            yield from map(_chunk, found)

    def hashes(self, ids: Sequence[int]) -> dict[int, str]:
        """Content hashes by chunk id."""
        found: dict[int, str] = {}
        for start in range(0, len(ids), _PER_QUERY):
            part = ids[start : start + _PER_QUERY]
            marks = ", ".join("?" * len(part))
            rows = self._all(f"SELECT id, hash FROM chunks WHERE id IN ({marks})", part)
            found.update((int(str(id_)), str(hash_)) for id_, hash_ in rows)
        return found

    def at(self, path: str, line: int) -> ChunkRow | None:
        """The chunk that holds a line of a file, or the nearest one of that file."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM chunks WHERE path = ? "
            "ORDER BY kind = 'skeleton', MAX(start_line - ?, ? - end_line, 0), "
            "end_line - start_line LIMIT 1",
            (path, line, line),
        )
        return _chunk(rows[0]) if rows else None

    def places(self) -> Iterator[tuple[int, str, str, str]]:
        """Id, path, language and kinds of every chunk, for filters."""
        query = "SELECT id, path, language, kinds FROM chunks ORDER BY id"
        yield from self._all(query)

    def defining(self, names: Iterable[str]) -> set[int]:
        """Ids of the chunks that define something of one of these names, in lower case."""
        wanted = sorted(names)[:_PER_QUERY]
        marks = ", ".join("?" * len(wanted))
        rows = self._all(f"SELECT chunk FROM symbols WHERE name IN ({marks})", wanted)
        return {int(str(row[0])) for row in rows}

    def without_vector(self, limit: int) -> list[ChunkRow]:
        """Chunks whose content has no vector yet, each content once, oldest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM chunks WHERE hash NOT IN (SELECT hash FROM vectors) "
            "GROUP BY hash ORDER BY MIN(id) LIMIT ?",
            (limit,),
        )
        return list(map(_chunk, rows))

    def having_vectors(self, hashes: Sequence[str]) -> set[str]:
        """Those of the content hashes that have a vector."""
        found: set[str] = set()
        for start in range(0, len(hashes), _PER_QUERY):
            part = hashes[start : start + _PER_QUERY]
            marks = ", ".join("?" * len(part))
            rows = self._all(f"SELECT hash FROM vectors WHERE hash IN ({marks})", part)
            found.update(str(row[0]) for row in rows)
        return found

    def add_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Add vectors ``(dim,)`` by content hash; kept in half precision, unit length."""
        rows = [
            (hash_, (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype("<f2").tobytes())
            for hash_, vector in vectors.items()
        ]
        with self._changing() as database:
            database.executemany("INSERT OR IGNORE INTO vectors (hash, dense) VALUES (?, ?)", rows)

    def new_vectors(self, after: int) -> tuple[list[str], npt.NDArray[np.float16], int]:
        """Hashes and ``(n, dim)`` vectors that came after vector ``after``, and the last's id."""
        rows = self._all("SELECT id, hash, dense FROM vectors WHERE id > ? ORDER BY id", (after,))
        if not rows:
            return [], np.empty((0, 0), np.float16), after
        joined = b"".join(row[2] for row in rows)
        matrix = np.frombuffer(joined, "<f2").reshape(len(rows), -1)
        return [str(row[1]) for row in rows], matrix, int(str(rows[-1][0]))

    def version(self) -> tuple[int, int]:
        """Changes when any process commits a change."""
        with self._thread:
            seen = self._database.execute("PRAGMA data_version").fetchone()[0]
            return int(seen), self._database.total_changes

    def close(self) -> None:
        """Release the files; the last one to close folds the journal into the file."""
        with self._thread:
            self._database.close()


def _connect(file: Path, create: bool) -> sqlite3.Connection:
    options = {"timeout": _WAIT_SECONDS, "isolation_level": None, "check_same_thread": False}
    try:
        database = sqlite3.connect(file, **options)  # type: ignore[call-overload]
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        if create:
            database.executescript(_SCHEMA)
        database.execute("SELECT COUNT(*) FROM meta")
    except sqlite3.OperationalError as error:
        if create or ("readonly" not in str(error) and "unable to open" not in str(error)):
            raise
        # On a disk that cannot be written nobody else writes either.
        database = sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True, **options)  # type: ignore[call-overload]
        database.execute("SELECT COUNT(*) FROM meta")
    database.execute("PRAGMA cache_size = -65536")
    return database


def _forget(database: sqlite3.Connection, paths: Sequence[str]) -> None:
    for start in range(0, len(paths), _PER_QUERY):
        part = list(paths[start : start + _PER_QUERY])
        marks = ", ".join("?" * len(part))
        database.execute(
            f"DELETE FROM symbols WHERE chunk IN (SELECT id FROM chunks WHERE path IN ({marks}))",
            part,
        )
        database.execute(f"DELETE FROM chunks WHERE path IN ({marks})", part)
        database.execute(f"DELETE FROM files WHERE path IN ({marks})", part)


def _values(chunk: ChunkRow) -> tuple[object, ...]:
    return (
        None,
        chunk.path,
        chunk.number,
        chunk.start_line,
        chunk.end_line,
        chunk.symbol,
        chunk.kind,
        chunk.breadcrumb,
        chunk.language,
        json.dumps(chunk.symbols, ensure_ascii=False),
        _SEPARATOR.join(["", *chunk.kinds, ""]),
        chunk.hash,
        chunk.text,
    )


def _chunk(row: Sequence[Any]) -> ChunkRow:
    symbols = tuple(json.loads(row[9]))
    kinds = tuple(row[10].split(_SEPARATOR)[1:-1])
    id_, path, number, start, end, symbol, kind, breadcrumb, language = row[:9]
    return ChunkRow(
        id_,
        path,
        number,
        start,
        end,
        symbol,
        kind,
        breadcrumb,
        language,
        symbols,
        kinds,
        hash=row[11],
        text=row[12],
    )

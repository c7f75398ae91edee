"""The rows of an index in memory: what filters and lexical search need, but no vectors."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from codeembed.lexical import BM25, save_arrays
from codeembed.tokenize import words
from mmembed.search.store import Record, VectorStore

__all__ = ["Catalog", "Row"]

logger = logging.getLogger(__name__)

_FILE_NAME = "lexical.npz"
_FIELDS = ("chunk_hash", "path", "language", "kinds", "symbols")
# Rewriting everything is cheaper than carrying more removed rows than live ones.
_MAX_DEAD_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk, without its text and vector."""

    id: str
    chunk_hash: str
    path: str
    language: str
    kinds: tuple[str, ...]
    symbols: tuple[str, ...]


class Catalog:
    """Rows and their words, kept in step with a store.

    The file beside the store only saves work: :meth:`refresh` compares it with the store, row by
    row, so that an old or a missing file never changes a result.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: list[tuple[str, str]] = []
        self.rows: list[Row | None] = []
        self.bm25 = BM25()
        self._load()

    def refresh(self, store: VectorStore) -> int:
        """Take over what changed in the store; returns how many rows that were."""
        current = {row.id: row for row in map(_row, store.scan(fields=_FIELDS))}
        rows: list[Row | None] = [None] * len(self._keys)
        changes = 0
        for number, (id_, chunk_hash) in enumerate(self._keys):
            row = current.get(id_) if id_ else None
            if row is not None and row.chunk_hash == chunk_hash:
                rows[number] = current.pop(id_)
            elif id_:
                self.bm25.remove(number)
                self._keys[number] = ("", "")
                changes += 1
        if rows and sum(row is None for row in rows) > _MAX_DEAD_SHARE * len(rows):
            self._keys, self.bm25 = [], BM25()
            return self.refresh(store) + changes
        for records in _with_text(store, current):
            for record in records:
                row = current[record.id]
                self.bm25.add([_document(row, record.text)])
                self._keys.append((row.id, row.chunk_hash))
                rows.append(row)
                changes += 1
        self.rows = rows
        return changes

    def save(self) -> None:
        """Write the file; for the one process that holds the store's lock."""
        keys = json.dumps(self._keys, ensure_ascii=False).encode()
        arrays = {**self.bm25.arrays(), "keys": np.frombuffer(keys, dtype=np.uint8)}
        save_arrays(self._folder / _FILE_NAME, arrays)

    def scores(self, query: str) -> npt.NDArray[np.float64]:
        """BM25 of every row, ``(len(rows),)``; 0 for rows that are gone."""
        return self.bm25.scores(words(query))

    def _load(self) -> None:
        try:
            with np.load(self._folder / _FILE_NAME, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            keys = [(id_, hash_) for id_, hash_ in json.loads(arrays.pop("keys").tobytes())]
            bm25 = BM25.from_arrays(arrays)
            if bm25.size != len(keys):
                raise ValueError("its parts do not belong together")
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s is not used: %s", self._folder / _FILE_NAME, error)
            return
        self._keys, self.bm25 = keys, bm25


def _with_text(store: VectorStore, rows: dict[str, Row]) -> Iterable[Iterable[Record]]:
    """Records of these rows with their text: all of the store at once where most are wanted."""
    ids: Sequence[str] = sorted(rows)
    if 2 * len(ids) > store.count():
        found = (record for record in store.scan(fields=("text",)) if record.id in rows)
        # In the order of ids: equal scores then rank alike, however the index came to be.
        yield sorted(found, key=lambda record: record.id)
        return
    for start in range(0, len(ids), 1000):
        part = store.get(ids[start : start + 1000])
        yield [part[id_] for id_ in ids[start : start + 1000] if id_ in part]


def _row(record: Record) -> Row:
    fields = record.fields
    kinds, symbols = fields.get("kinds") or [], fields.get("symbols") or []
    assert isinstance(kinds, list)
    assert isinstance(symbols, list)
    return Row(
        record.id,
        str(fields["chunk_hash"]),
        str(fields["path"]),
        str(fields["language"]),
        tuple(kinds),
        tuple(symbols),
    )


def _document(row: Row, text: str) -> list[str]:
    """A chunk's words, with its names and where it is; the file's name counts twice."""
    path = PurePosixPath(row.path)
    folders = " ".join(path.parent.parts[-3:])
    return words(f"{text}\n{' '.join(row.symbols)}\n{path.stem} {path.stem}\n{folders}")

"""What search needs of an index, in memory: words, static and dense vectors, row by row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from codeembed.columns import load_columns, save_columns
from codeembed.database import ChunkRow, CodeStore
from codeembed.lexical import BM25
from codeembed.tokenize import parts, words
from mmembed.static_vectors import StaticVectors

__all__ = ["Catalog"]

_VERSION = "1"
_BATCH = 1000
# Rewriting everything is cheaper than carrying more removed rows than live ones.
_MAX_DEAD_SHARE = 0.5
# The file is worth writing again when a reader would otherwise redo this share of the work.
_STALE_SHARE = 0.05
_STALE_ROWS = 200

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Catalog:
    """Rows by ascending id of their chunk, kept in step with a store.

    The files beside the store only save work: :meth:`refresh` compares ids with the store, and one
    id is one content for ever, so that old or missing files never change a result.

    Args:
        folder: Of the index.
        static: Word vectors, if there are any.
    """

    def __init__(self, folder: Path, static: StaticVectors | None) -> None:
        self._folder = folder
        self._static = static
        self._seen: tuple[int, int] | None = None
        self._fresh = 0
        self._last_vector = 0
        self._vector_rows: dict[str, int] = {}
        self._dense = _Rows()
        self._clear()
        self._load()

    def _clear(self) -> None:
        self.ids: Ints = np.empty(0, np.int64)
        self.bm25 = BM25()
        self._words = _Rows()
        self._alive: npt.NDArray[np.bool_] = np.empty(0, bool)
        # Row of the dense matrix by our row; -1 where there is none yet.
        self._dense_of = np.empty(0, np.int64)
        self._fresh = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """``(len,)``: rows that still are in the store."""
        return self._alive

    def refresh(self, store: CodeStore) -> int:
        """Take over what changed in the store; returns how many rows that were."""
        version = store.version()
        if version == self._seen:
            return 0
        current = store.chunk_ids()
        gone = self._alive & ~np.isin(self.ids, current, assume_unique=True)
        new = np.setdiff1d(current, self.ids, assume_unique=True)
        dead = int((~self._alive).sum() + gone.sum())
        if dead > _MAX_DEAD_SHARE * max(1, len(self.ids)):
            self._clear()
            return self.refresh(store) + dead
        for row in np.flatnonzero(gone):
            self.bm25.remove(int(row))
        self._alive = self._alive & ~gone
        if len(new):
            self._append(store, new)
        self._take_vectors(store)
        self._seen = version
        changes = int(gone.sum()) + len(new)
        self._fresh += changes
        return changes

    def save_if_stale(self) -> None:
        """Write the files if much has changed since; for the process that holds the write lock."""
        if self._fresh > max(_STALE_ROWS, _STALE_SHARE * len(self.ids)):
            self.save()

    def save(self) -> None:
        """Write the files."""
        if not self._alive.all():
            return  # numbers of rows would not be those of a clean start
        arrays = {f"bm25_{name}": each for name, each in self.bm25.arrays().items()}
        arrays["ids"] = self.ids
        arrays["about"] = np.frombuffer(json.dumps(self._about).encode(), np.uint8)
        arrays["static"] = self._words.matrix.astype(np.float16)
        save_columns(self._folder, arrays)
        self._fresh = 0

    def rows_of(self, ids: Sequence[int] | Ints) -> Ints:
        """Rows of chunks that are known."""
        wanted = np.asarray(ids, np.int64)
        if not len(self.ids) or not len(wanted):
            return np.empty(0, np.int64)
        rows = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.asarray(rows[self.ids[rows] == wanted])

    def lexical(self, query: Sequence[str]) -> npt.NDArray[np.float64]:
        """BM25 of every row for the words of a query; 0 for rows that are gone."""
        return self.bm25.scores(query)

    def static(self, query: str) -> Floats | None:
        """Cosine of every row by words alone; None without static vectors or known words."""
        if self._static is None:
            return None
        return self._by_words(self._static.of_counts([_bag(Counter(words(query)))])[0])

    def static_of(self, row: int) -> Floats | None:
        """The same with a row for a query."""
        return None if self._static is None else self._by_words(self._words.matrix[row])

    def dense(self, vector: Floats) -> Floats:
        """Cosine of every row to a unit vector; NaN where a row has no vector yet."""
        result = np.full(len(self.ids), np.nan, np.float32)
        known = self._dense_of >= 0
        if known.any():
            result[known] = (self._dense.matrix @ vector)[self._dense_of[known]]
        return result

    def dense_of(self, row: int) -> Floats | None:
        """The dense vector of a row, if it has one."""
        place = self._dense_of[row]
        return None if place < 0 else self._dense.matrix[place]

    @property
    def has_dense(self) -> npt.NDArray[np.bool_]:
        """``(len,)``: rows with a dense vector."""
        return np.asarray(self._dense_of >= 0)

    def _by_words(self, vector: Floats) -> Floats | None:
        return self._words.matrix @ vector if vector.any() else None

    def _append(self, store: CodeStore, ids: Ints) -> None:
        for start in range(0, len(ids), _BATCH):
            chunks = list(store.chunks([int(each) for each in ids[start : start + _BATCH]]))
            bags = [Counter(words(_document(chunk))) for chunk in chunks]
            for bag in bags:
                self.bm25.add_counts(bag)
            if self._static is not None:
                self._words.append(self._static.of_counts([_bag(bag) for bag in bags]))
            self.ids = np.concatenate([self.ids, [chunk.id for chunk in chunks]])
        added = len(self.ids) - len(self._alive)
        self._alive = np.concatenate([self._alive, np.ones(added, bool)])
        self._dense_of = np.concatenate([self._dense_of, np.full(added, -1)])

    def _take_vectors(self, store: CodeStore) -> None:
        hashes, matrix, self._last_vector = store.new_vectors(self._last_vector)
        if hashes:
            start = len(self._dense)
            self._vector_rows.update(zip(hashes, range(start, start + len(hashes)), strict=True))
            self._dense.append(matrix.astype(np.float32))
        missing = np.flatnonzero(self._alive & (self._dense_of < 0))
        if len(missing) and self._vector_rows:
            found = store.hashes([int(each) for each in self.ids[missing]])
            for row in missing:
                self._dense_of[row] = self._vector_rows.get(found.get(int(self.ids[row]), ""), -1)

    @property
    def _about(self) -> dict[str, str]:
        return {"version": _VERSION, "static": self._static.digest if self._static else ""}

    def _load(self) -> None:
        arrays = load_columns(self._folder)
        if arrays is None:
            return
        try:
            about = json.loads(arrays["about"].tobytes())
            if about != {
                "version": _VERSION,
                "static": self._static.digest if self._static else "",
            }:
                return
            names = ("words", "word_ends", "ends", "documents", "counts", "lengths", "alive")
            bm25 = BM25.from_arrays({name: arrays[f"bm25_{name}"] for name in names})
            ids = np.array(arrays["ids"], np.int64)
            static = np.array(arrays["static"], np.float32)
            if bm25.size != len(ids) or (self._static and len(static) != len(ids)):
                return
        except (KeyError, ValueError):
            return
        self.ids, self.bm25 = ids, bm25
        self._alive = np.ones(len(ids), bool)
        self._dense_of = np.full(len(ids), -1)
        if self._static is not None:
            self._words.append(static)


class _Rows:
    """A matrix that grows at its end."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []

    def append(self, rows: Floats) -> None:
        self._parts.append(rows)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def matrix(self) -> Floats:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.empty((0, 0), np.float32)


def _bag(counts: Counter[str]) -> dict[str, float]:
    """Weights of words for static vectors: parts speak for the identifiers that they are in."""
    return {word: 1.0 + np.log(count) for word, count in counts.items() if parts(word) == (word,)}


def _document(chunk: ChunkRow) -> str:
    """A chunk's words, with its names and where it is; the file's name counts twice."""
    path = PurePosixPath(chunk.path)
    folders = " ".join(path.parent.parts[-3:])
    return f"{chunk.text}\n{' '.join(chunk.symbols)}\n{path.stem} {path.stem}\n{folders}"

"""The exact store in memory: brute-force cosine and plain BM25, the oracle of the other stores."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from mmembed.search.filter_parser import compile_filter
from mmembed.search.filters import Filter, matches
from mmembed.search.store import (
    FieldType,
    FilterLike,
    Record,
    StoreHit,
    StoreLockedError,
    StoreStats,
    Vector,
    check_fields,
    check_query_vector,
    check_records,
    check_summary,
    filterable,
)

__all__ = ["MemoryStore"]

# The constants of Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework".
_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[^\W_]+")


class MemoryStore:
    """A :class:`~mmembed.search.store.VectorStore` that lives and dies with the process.

    Args:
        dim: length of the vectors.
        fields: typed fields to begin with.
        meta: what to remember about the store.
        summary_dim: length of the summaries; 0 keeps neither them nor tokens.
    """

    def __init__(
        self,
        dim: int,
        fields: Mapping[str, FieldType] | None = None,
        meta: Mapping[str, str] | None = None,
        summary_dim: int = 0,
    ) -> None:
        check_fields(fields or {}, {})
        self._dim = dim
        self._summary_dim = summary_dim
        self._fields: dict[str, FieldType] = dict(fields or {})
        self._meta = dict(meta or {})
        self._records: dict[str, Record] = {}
        self._lock = threading.RLock()

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def summary_dim(self) -> int:
        return self._summary_dim

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return dict(self._fields)

    @property
    def meta(self) -> Mapping[str, str]:
        return dict(self._meta)

    @contextmanager
    def writing(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StoreLockedError("another thread is writing to this store")
        try:
            yield
        finally:
            self._lock.release()

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        with self.writing():
            check_fields(fields, self._fields)
            self._fields = {**self._fields, **fields}

    def upsert(self, records: Sequence[Record]) -> None:
        with self.writing():
            checked = check_records(records, self._dim, self._fields, self._summary_dim)
            # A new dict, so that a reader in another thread keeps a whole state.
            self._records = {**self._records, **{record.id: record for record in checked}}

    def delete(self, where: FilterLike) -> int:
        with self.writing():
            gone = {record.id for record in self._matching(where)}
            self._records = {key: each for key, each in self._records.items() if key not in gone}
            return len(gone)

    def search(self, vector: Vector, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        query = check_query_vector(vector, self._dim)
        records = self._matching(where)
        if k < 1 or not records:
            return []
        matrix = np.stack([_vector(record) for record in records])
        norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
        return _best(records, matrix @ query / norms, k)

    def search_text(self, query: str, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        words = set(_words(query))
        if k < 1 or not words:
            return []
        # Rarity is measured over the whole store, as an inverted index does.
        bags = {key: Counter(_words(record.text)) for key, record in self._records.items()}
        mean_length = sum(bag.total() for bag in bags.values()) / max(len(bags), 1)
        rarity = {
            word: math.log(1 + (len(bags) - seen + 0.5) / (seen + 0.5))
            for word in words
            if (seen := sum(word in bag for bag in bags.values()))
        }
        found = [
            each for each in self._matching(where) if not rarity.keys().isdisjoint(bags[each.id])
        ]
        scores = [_bm25(bags[record.id], rarity, mean_length) for record in found]
        return _best(found, np.asarray(scores), k)

    def search_summary(
        self, vector: Vector, k: int, where: FilterLike | None = None
    ) -> list[tuple[str, float]]:
        query = check_summary("query vector", vector, self._summary_dim)
        records = self._matching(where)
        if k < 1 or not records:
            return []
        matrix = np.stack([record.summary for record in records if record.summary is not None])
        return [(hit.record.id, hit.score) for hit in _best(records, matrix @ query, k)]

    def scan_tokens(self, where: FilterLike | None = None) -> Iterator[tuple[str, bytes]]:
        for record in self._matching(where):
            if record.tokens is not None:
                yield record.id, record.tokens

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        found = (self._records[key] for key in ids if key in self._records)
        return {record.id: record if vectors else _bare(record) for record in found}

    def scan(
        self,
        where: FilterLike | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Record]:
        for record in self._matching(where):
            found = record if vectors else _bare(record)
            if fields is None:
                yield found
                continue
            text = record.text if "text" in fields else ""
            values = {name: value for name, value in record.fields.items() if name in fields}
            yield replace(found, text=text, fields=values)

    def count(self, where: FilterLike | None = None) -> int:
        return len(self._matching(where))

    def stats(self) -> StoreStats:
        return StoreStats(len(self._records), self._dim, 0, 1, None, 0, self.fields)

    def optimize(self) -> None:
        """Nothing to do: search is always exact."""

    def close(self) -> None:
        """Nothing to release."""

    def _matching(self, where: FilterLike | None) -> list[Record]:
        tree = compile_filter(where, filterable(self._fields))
        records = list(self._records.values())
        return records if tree is None else [each for each in records if _passes(tree, each)]


def _passes(tree: Filter, record: Record) -> bool:
    return matches(tree, {**record.fields, "id": record.id, "text": record.text})


def _vector(record: Record) -> Vector:
    assert record.vector is not None  # check_records
    return record.vector


def _best(records: Sequence[Record], scores: np.ndarray, k: int) -> list[StoreHit]:
    order = np.argsort(-scores, kind="stable")[:k]
    return [StoreHit(_bare(records[i]), float(scores[i])) for i in order]


def _bare(record: Record) -> Record:
    return replace(record, vector=None, tokens=None, summary=None)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _bm25(bag: Counter[str], rarity: Mapping[str, float], mean_length: float) -> float:
    length = _K1 * (1 - _B + _B * bag.total() / mean_length)
    return sum(idf * bag[word] * (_K1 + 1) / (bag[word] + length) for word, idf in rarity.items())

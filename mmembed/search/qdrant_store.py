"""A store on a Qdrant server, which many machines may read and write: ``qdrant://HOST/COLLECTION``.

The dense vector, the summary and the words are named vectors of one point. Words are weighted by
BM25 here and their rarity by the server. Vectors come back with length one: Qdrant keeps them so.
"""

from __future__ import annotations

import base64
import re
import threading
import uuid
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from mmembed.errors import InputError
from mmembed.search.filter_parser import compile_filter
from mmembed.search.filters import Filter, In, matches
from mmembed.search.qdrant_filters import HAS, ID, TEXT, to_qdrant
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

__all__ = ["QdrantStore"]

_DENSE, _SUMMARY, _WORDS, _TOKENS = "dense", "summary", "words", "_tokens"
_PAGE = 500
_WORD = re.compile(r"[^\W_]+")
# Of Robertson and Zaragoza (2009); the mean length is a guess, since no store knows it beforehand.
_K1, _B, _MEAN_LENGTH = 1.2, 0.75, 100
_SPACE = uuid.UUID("6f1d0f0e-3f0b-4a52-9d8a-7c5b3d1e2a90")
_INDEX_TYPES: dict[FieldType, models.PayloadSchemaType] = {
    "str": models.PayloadSchemaType.KEYWORD,
    "list[str]": models.PayloadSchemaType.KEYWORD,
    "int": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
}


class QdrantStore:
    """A :class:`~mmembed.search.store.VectorStore` in a collection.

    What the store knows of itself (fields, meta) lies in a second collection, ``NAME.about``.
    Writes of one process exclude each other; those of several meet at the server, which takes the
    last of two to the same id. An upsert is whole for each 500 records.
    """

    def __init__(self, client: QdrantClient, name: str) -> None:
        self._client = client
        self._name = name
        self._lock = threading.RLock()
        about = client.retrieve(f"{name}.about", [0], with_payload=True)[0].payload or {}
        self._dim, self._summary_dim = int(about["dim"]), int(about["summary_dim"])

    @staticmethod
    def exists(client: QdrantClient, name: str) -> bool:
        """Whether the collection is there; one whose making was cut off does not count."""
        return client.collection_exists(f"{name}.about") and bool(
            client.retrieve(f"{name}.about", [0])
        )

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        name: str,
        *,
        dim: int,
        fields: Mapping[str, FieldType] | None = None,
        meta: Mapping[str, str] | None = None,
        summary_dim: int = 0,
    ) -> QdrantStore:
        """Make an empty store.

        Raises:
            FileExistsError: the collection is there already.
            InputError: a field name is not usable.
        """
        check_fields(fields or {}, {})
        if cls.exists(client, name):
            raise FileExistsError(f"{name}: there is such a collection already")
        vectors = {_DENSE: models.VectorParams(size=dim, distance=models.Distance.COSINE)}
        if summary_dim:
            vectors[_SUMMARY] = models.VectorParams(size=summary_dim, distance=models.Distance.DOT)
        words = models.SparseVectorParams(modifier=models.Modifier.IDF)
        for made in (name, f"{name}.about"):
            if client.collection_exists(made):  # left by a run that was cut off
                client.delete_collection(made)
        client.create_collection(
            name, vectors_config=vectors, sparse_vectors_config={_WORDS: words}
        )
        client.create_collection(f"{name}.about", vectors_config={})
        about = {
            "dim": dim,
            "summary_dim": summary_dim,
            "fields": dict(fields or {}),
            "meta": dict(meta or {}),
        }
        point = models.PointStruct(id=0, vector={}, payload=about)
        client.upsert(f"{name}.about", [point], wait=True)
        store = cls(client, name)
        # Before the first row: a filter whose index came after the graph finds a fifth.
        store._index_fields({**(fields or {})})
        return store

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def summary_dim(self) -> int:
        return self._summary_dim

    @property
    def fields(self) -> Mapping[str, FieldType]:
        found: dict[str, FieldType] = self._about()["fields"]
        return found

    @property
    def meta(self) -> Mapping[str, str]:
        found: dict[str, str] = self._about()["meta"]
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StoreLockedError(f"{self._name}: another thread is writing to this store")
        try:
            yield
        finally:
            self._lock.release()

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        with self.writing():
            known = self.fields
            check_fields(fields, known)
            if new := {name: kind for name, kind in fields.items() if name not in known}:
                self._index_fields(new)
                self._client.set_payload(
                    f"{self._name}.about", {"fields": {**known, **new}}, points=[0], wait=True
                )

    def upsert(self, records: Sequence[Record]) -> None:
        with self.writing():
            checked = check_records(records, self._dim, self.fields, self._summary_dim)
            points = [self._point(record) for record in checked]
            for start in range(0, len(points), _PAGE):
                self._client.upsert(self._name, points[start : start + _PAGE], wait=True)

    def delete(self, where: FilterLike) -> int:
        with self.writing():
            condition = self._condition(where) or models.Filter()
            count = self._client.count(self._name, condition, exact=True).count
            if count:
                selector = models.FilterSelector(filter=condition)
                self._client.delete(self._name, selector, wait=True)
            return count

    def search(self, vector: Vector, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        return self._ranked(check_query_vector(vector, self._dim).tolist(), _DENSE, k, where)

    def search_text(self, query: str, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        words = sorted({_number(word) for word in _words(query)})
        asked = models.SparseVector(indices=words, values=[1.0] * len(words))
        self._condition(where)  # a bad filter is an error, also where no word is asked for
        return self._ranked(asked, _WORDS, k if words else 0, where)

    def search_summary(
        self, vector: Vector, k: int, where: FilterLike | None = None
    ) -> list[tuple[str, float]]:
        query = check_summary("query vector", vector, self._summary_dim).tolist()
        return [(hit.record.id, hit.score) for hit in self._ranked(query, _SUMMARY, k, where)]

    def scan_tokens(self, where: FilterLike | None = None) -> Iterator[tuple[str, bytes]]:
        for point in self._points(where, [ID, _TOKENS], vectors=False):
            yield point.payload[ID], base64.b64decode(point.payload[_TOKENS])

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        wanted = [_point_id(key) for key in dict.fromkeys(ids)]
        found = {}
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            for point in self._client.retrieve(
                self._name, some, with_payload=True, with_vectors=vectors
            ):
                record = _record(point, vectors)
                found[record.id] = record
        return found

    def scan(
        self,
        where: FilterLike | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Record]:
        payload: Any = True
        if fields is not None:
            own = [TEXT if name == "text" else name for name in fields]
            payload = [ID, *own, *([_TOKENS] if vectors else [])]
        for point in self._points(where, payload, vectors):
            yield _record(point, vectors)

    def count(self, where: FilterLike | None = None) -> int:
        return int(self._client.count(self._name, self._condition(where), exact=True).count)

    def stats(self) -> StoreStats:
        info = self._client.get_collection(self._name)
        indexed = info.indexed_vectors_count or 0
        rows = self.count()
        kind = "HNSW" if indexed else None
        unindexed = max(0, rows - indexed) if indexed else 0
        return StoreStats(rows, self._dim, 0, 1, kind, unindexed, self.fields)

    def optimize(self) -> None:
        """Nothing to do: the server does by itself."""

    def close(self) -> None:
        self._client.close()

    def _about(self) -> Mapping[str, Any]:
        point = self._client.retrieve(f"{self._name}.about", [0], with_payload=True)[0]
        return point.payload or {}

    def _index_fields(self, fields: Mapping[str, FieldType]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client's own small engine has no such indexes
            kinds = {name: _INDEX_TYPES[kind] for name, kind in fields.items()}
            for name, kind in ({ID: _INDEX_TYPES["str"], HAS: _INDEX_TYPES["str"]} | kinds).items():
                self._client.create_payload_index(self._name, name, kind, wait=True)

    def _condition(self, where: FilterLike | None) -> models.Filter | None:
        if where is None:
            return None
        fields = filterable(self.fields)
        tree = compile_filter(where, fields)
        if isinstance(tree, In) and tree.field == "id":
            ids: Any = [_point_id(str(key)) for key in tree.values]
            return models.Filter(must=[models.HasIdCondition(has_id=ids)])
        return None if tree is None else to_qdrant(tree, fields, self._lookup)

    def _lookup(self, tree: Filter) -> list[str]:
        found = []
        for point in self._points(None, True, vectors=False):
            payload = point.payload
            row = {**_fields(payload), "id": payload[ID], "text": payload[TEXT]}
            if matches(tree, row):
                found.append(point.id)
        return found

    def _points(self, where: FilterLike | None, payload: Any, vectors: bool) -> Iterator[Any]:
        condition, offset = self._condition(where), None
        while True:
            points, offset = self._client.scroll(
                self._name,
                scroll_filter=condition,
                limit=_PAGE,
                offset=offset,
                with_payload=payload,
                with_vectors=vectors,
            )
            yield from points
            if offset is None:
                return

    def _ranked(self, query: Any, name: str, k: int, where: FilterLike | None) -> list[StoreHit]:
        condition = self._condition(where)
        if k < 1:
            return []
        found = self._client.query_points(
            self._name, query=query, using=name, limit=k, query_filter=condition, with_payload=True
        )
        return [StoreHit(_record(point, False), float(point.score)) for point in found.points]

    def _point(self, record: Record) -> models.PointStruct:
        assert record.vector is not None  # check_records
        vector: dict[str, Any] = {
            _DENSE: record.vector.tolist(),
            _WORDS: _weighted(record.text),
        }
        kept = {name: value for name, value in record.fields.items() if value is not None}
        payload = {**kept, ID: record.id, TEXT: record.text, HAS: list(kept)}
        if record.summary is not None and record.tokens is not None:
            vector[_SUMMARY] = record.summary.tolist()
            payload[_TOKENS] = base64.b64encode(record.tokens).decode()
        return models.PointStruct(id=_point_id(record.id), vector=vector, payload=payload)


def _point_id(key: str) -> str:
    try:
        return str(uuid.uuid5(_SPACE, key))
    except UnicodeEncodeError as error:
        raise InputError(ascii(key)[:80], "is not valid Unicode") from error


def _fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if not name.startswith("_")}


def _record(point: Any, vectors: bool) -> Record:
    payload = point.payload
    held = point.vector or {}
    arrays = {
        name: np.asarray(held[name], np.float32)
        for name in (_DENSE, _SUMMARY)
        if vectors and name in held
    }
    tokens = payload.get(_TOKENS) if vectors else None
    return Record(
        payload[ID],
        arrays.get(_DENSE),
        payload.get(TEXT, ""),
        _fields(payload),
        None if tokens is None else base64.b64decode(tokens),
        arrays.get(_SUMMARY),
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _number(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "replace"))


def _weighted(text: str) -> models.SparseVector:
    """The part of BM25 that a document knows; rarity is the server's."""
    counts = Counter(_number(word) for word in _words(text))
    length = _K1 * (1 - _B + _B * counts.total() / _MEAN_LENGTH)
    weights = {word: n * (_K1 + 1) / (n + length) for word, n in sorted(counts.items())}
    return models.SparseVector(indices=list(weights), values=list(weights.values()))

"""The store on disk: LanceDB, columnar files with an atomic commit for every write.

The rules below come from measurements of LanceDB 0.40 and from its known bugs: one writer at a
time, batches rather than single rows, exact search in small tables, full text without positions
(compaction fails with them), and no media bytes in the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.search.damage import naming_damage
from mmembed.search.filter_parser import compile_filter
from mmembed.search.filters import In, to_sql
from mmembed.search.lock import WriterLock
from mmembed.search.store import (
    FieldType,
    FilterLike,
    Record,
    StoreHit,
    StoreStats,
    Vector,
    check_fields,
    check_query_vector,
    check_records,
    check_summary,
    filterable,
)

# LanceDB logs from Rust to stderr, and this is the only variable it reads.
os.environ.setdefault("LANCEDB_LOG", "error")

import lancedb
import pyarrow as pa
from lancedb.index import FTS, IvfRq
from lancedb.query import MatchQuery

from mmembed.search.lance_summaries import Summaries, summary_array, token_columns

__all__ = ["LanceStore"]

_TABLE = "items"
_VECTOR_INDEX = "vector_idx"
# Below this many rows an exact scan takes milliseconds and an approximate index gains nothing.
_MIN_INDEXED_ROWS = 100_000
# Candidates re-scored with the full vectors, as a multiple of k. What passes a filter is often far
# from the query and close together, where one bit a dimension ranks badly: of 200,000 clustered
# vectors with 1 % passing, a factor of 10 found 83 % of the true ten best, and 50 found 99 %.
_REFINE = 20
_REFINE_FILTERED = 50
# Longer than any reader holds on to one version of the table.
_KEEP_VERSIONS = timedelta(hours=1)
_IDS_PER_QUERY = 1000

_ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "list[str]": pa.list_(pa.string()),
}


class LanceStore:
    """A :class:`~mmembed.search.store.VectorStore` in a folder.

    Use :meth:`create` or :meth:`open`. Many processes may read while one writes; a reader sees
    every finished write.
    """

    def __init__(self, folder: Path, table: Any) -> None:
        self._folder = folder
        self._table = table
        self._lock = WriterLock(folder)
        self._dim = int(table.schema.field("vector").type.list_size)
        self._summaries = Summaries(table)

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether a store was created in this folder; one killed before that does not count."""
        versions = Path(folder) / f"{_TABLE}.lance" / "_versions"
        return versions.is_dir() and any(versions.glob("*.manifest"))

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        dim: int,
        fields: Mapping[str, FieldType] | None = None,
        meta: Mapping[str, str] | None = None,
        summary_dim: int = 0,
    ) -> LanceStore:
        """Make an empty store; the folder is created where it is missing.

        Args:
            folder: where the store lives.
            dim: length of the vectors.
            fields: typed fields to begin with.
            meta: what to remember about the store, written in the same commit.
            summary_dim: length of the summaries; 0 keeps neither them nor tokens.

        Raises:
            FileExistsError: the folder holds a store already.
            InputError: a field name is not usable.
            StoreLockedError: another process is creating it.
        """
        check_fields(fields or {}, {})
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with WriterLock(folder).held():
            if cls.exists(folder):
                raise FileExistsError(f"{folder}: holds an index already")
            schema = pa.schema(
                [
                    pa.field("id", pa.string(), nullable=False),
                    pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
                    pa.field("text", pa.string(), nullable=False),
                    *token_columns(summary_dim),
                    *(pa.field(name, _ARROW_TYPES[kind]) for name, kind in (fields or {}).items()),
                ],
                metadata=dict(meta or {}),
            )
            with naming_damage(folder):
                return cls(folder, _connect(folder).create_table(_TABLE, schema=schema))

    @classmethod
    def open(cls, folder: str | Path) -> LanceStore:
        """Open a store for reading, and for writing as soon as a write is asked for.

        Raises:
            FileNotFoundError: there is no store in the folder.
        """
        folder = Path(folder)
        if not cls.exists(folder):
            raise FileNotFoundError(f"{folder}: holds no index")
        with naming_damage(folder):
            return cls(folder, _connect(folder).open_table(_TABLE))

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def summary_dim(self) -> int:
        return self._summaries.dim

    @property
    def fields(self) -> Mapping[str, FieldType]:
        by_arrow = {kind: name for name, kind in _ARROW_TYPES.items()}
        own = (column for column in self._table.schema if column.name not in _OWN_COLUMNS)
        return {column.name: by_arrow[column.type] for column in own}

    @property
    def meta(self) -> Mapping[str, str]:
        metadata = self._table.schema.metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._lock.held():
            self._finish_creation()
            yield

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        with self.writing():
            known = self.fields
            check_fields(fields, known)
            new = [
                pa.field(name, _ARROW_TYPES[kind])
                for name, kind in fields.items()
                if name not in known
            ]
            if new:
                with naming_damage(self._folder):
                    self._table.add_columns(new)

    def upsert(self, records: Sequence[Record]) -> None:
        with self.writing():
            checked = check_records(records, self._dim, self.fields, self.summary_dim)
            if not checked:
                return
            with naming_damage(self._folder):
                merge = self._table.merge_insert("id")
                merge = merge.when_matched_update_all().when_not_matched_insert_all()
                merge.execute(_to_arrow(checked, self._table.schema))

    def delete(self, where: FilterLike) -> int:
        with self.writing():
            predicate = self._predicate(where)
            with naming_damage(self._folder):
                return int(self._table.delete(predicate).num_deleted_rows)

    def search(self, vector: Vector, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        query = check_query_vector(vector, self._dim)
        predicate = self._predicate(where)
        if k < 1:
            return []
        search = self._table.search(query, vector_column_name="vector").distance_type("cosine")
        rows = self._approximate_rows()
        if rows:
            refine = _REFINE if where is None else _REFINE_FILTERED
            search = search.nprobes(_probes(rows)).refine_factor(refine)
        # The score column is asked for by name: otherwise each query logs a deprecation warning.
        search = search.where(predicate, prefilter=True).select([*self._columns(), "_distance"])
        with naming_damage(self._folder):
            found = search.limit(k).to_arrow().to_pylist()
        return [StoreHit(_to_record(row), 1.0 - row["_distance"]) for row in found]

    def search_text(self, query: str, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        predicate = self._predicate(where)
        if k < 1 or not query.strip() or not self._has_index("text_idx"):
            return []
        # As a MatchQuery every character is text: there is no query syntax to escape.
        search = self._table.search(MatchQuery(query, "text"), query_type="fts")
        search = search.where(predicate, prefilter=True).select([*self._columns(), "_score"])
        with naming_damage(self._folder):
            found = search.limit(k).to_arrow().to_pylist()
        return [StoreHit(_to_record(row), row["_score"]) for row in found]

    def search_summary(
        self, vector: Vector, k: int, where: FilterLike | None = None
    ) -> list[tuple[str, float]]:
        query = check_summary("query vector", vector, self.summary_dim)
        predicate = self._predicate(where)
        with naming_damage(self._folder):
            return [] if k < 1 else self._summaries.search(query, k, predicate)

    def scan_tokens(self, where: FilterLike | None = None) -> Iterator[tuple[str, bytes]]:
        search = self._table.search().where(self._predicate(where)).select(["id", "tokens"])
        for batch in self._batches(search):
            yield from zip(
                batch.column("id").to_pylist(), batch.column("tokens").to_pylist(), strict=True
            )

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        wanted = tuple(dict.fromkeys(ids))
        return {
            record.id: record
            for start in range(0, len(wanted), _IDS_PER_QUERY)
            for record in self.scan(
                In("id", wanted[start : start + _IDS_PER_QUERY]), vectors=vectors
            )
        }

    def scan(
        self,
        where: FilterLike | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Record]:
        wanted = self._columns() if fields is None else ["id", *fields]
        if vectors:
            wanted = [*wanted, "vector", *(["tokens", "summary"] if self.summary_dim else [])]
        search = self._table.search().where(self._predicate(where)).select(wanted)
        for batch in self._batches(search):
            arrays: dict[str, Vector] = {
                name: _matrix(batch, name)
                for name in ("vector", "summary")
                if name in batch.schema.names
            }
            for row, values in enumerate(batch.drop_columns([*arrays]).to_pylist()):
                yield _to_record(values, **{name: each[row] for name, each in arrays.items()})

    def count(self, where: FilterLike | None = None) -> int:
        return int(self._table.count_rows(None if where is None else self._predicate(where)))

    def stats(self) -> StoreStats:
        index = next((each for each in self._indices() if each.name == _VECTOR_INDEX), None)
        return StoreStats(
            rows=self.count(),
            dim=self._dim,
            bytes=_bytes_under(self._folder),
            versions=len(self._table.list_versions()),
            vector_index=None if index is None else index.index_type,
            unindexed_rows=0 if index is None else index.num_unindexed_rows,
            fields=self.fields,
        )

    def optimize(self) -> None:
        with self.writing(), naming_damage(self._folder):
            self._table.optimize(cleanup_older_than=_KEEP_VERSIONS)
            rows = self.count()
            if rows >= _MIN_INDEXED_ROWS and not self._has_index(_VECTOR_INDEX):
                config = IvfRq(distance_type="cosine", num_partitions=_partitions(rows))
                self._table.create_index("vector", config=config, name=_VECTOR_INDEX)
            if rows >= _MIN_INDEXED_ROWS and self.summary_dim:
                self._summaries.build_index(_partitions(rows))

    def close(self) -> None:
        """Nothing to release: files are open only during a call, the lock only during a write."""

    def _batches(self, search: Any) -> Iterator[pa.RecordBatch]:
        with naming_damage(self._folder):
            yield from search.to_batches(1024)

    def _finish_creation(self) -> None:
        # A process killed between creating the table and its text index leaves this to the next.
        if not self._has_index("text_idx"):
            with naming_damage(self._folder):
                self._table.create_index("text", config=_FULL_TEXT, name="text_idx")

    def _indices(self) -> list[Any]:
        return list(self._table.list_indices())

    def _has_index(self, name: str) -> bool:
        return any(index.name == name for index in self._indices())

    def _approximate_rows(self) -> int:
        """How many rows the approximate index holds; 0 without one."""
        found = (index for index in self._indices() if index.name == _VECTOR_INDEX)
        return next((int(index.num_indexed_rows) for index in found), 0)

    def _columns(self) -> list[str]:
        return [name for name in self._table.schema.names if name not in _HEAVY_COLUMNS]

    def _predicate(self, where: FilterLike | None) -> str:
        if where is None:  # without a look at the table: it is asked for often
            return "TRUE"
        fields = filterable(self.fields)
        tree = compile_filter(where, fields)
        return "TRUE" if tree is None else to_sql(tree, fields)


_OWN_COLUMNS = frozenset({"id", "vector", "text", "tokens", "summary"})
_HEAVY_COLUMNS = frozenset({"vector", "tokens", "summary"})
# Lucene's list for English: LanceDB's own takes single digits for stop words, as in "chapter 7".
_STOP_WORDS = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in",
    "into", "is", "it", "no", "not", "of", "on", "or", "such", "that", "the",
    "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
]  # fmt: skip
# ICU splits words in scripts without spaces too, and at underscores. Positions stay off: with them
# compaction can fail, and then the table grows without bound.
_FULL_TEXT = FTS(base_tokenizer="icu/split", with_position=False, custom_stop_words=_STOP_WORDS)


def _connect(folder: Path) -> Any:
    # An interval of zero: every read looks for the newest version, so readers follow the writer.
    return lancedb.connect(folder, read_consistency_interval=timedelta(0))


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        # A writer may drop an old version meanwhile.
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _partitions(rows: int) -> int:
    return round(math.sqrt(rows))


def _probes(rows: int) -> int:
    """A quarter of the partitions: a constant number loses recall as a table grows.

    Of 100,000 token states, 20 of 316 partitions found 94 % of the true ten best, and 64 found 98 %
    in nearly the same time.
    """
    return max(20, math.ceil(_partitions(rows) / 4))


def _to_arrow(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    vectors = np.stack([record.vector for record in records if record.vector is not None])
    size = schema.field("vector").type.list_size
    columns: dict[str, Any] = {
        "id": [record.id for record in records],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size),
        "text": [record.text for record in records],
    }
    if "summary" in schema.names:
        summaries = np.stack([each.summary for each in records if each.summary is not None])
        columns["tokens"] = [record.tokens for record in records]
        columns["summary"] = summary_array(summaries)
    for name in schema.names:
        if name not in _OWN_COLUMNS:
            columns[name] = [record.fields.get(name) for record in records]
    return pa.table(columns, schema=schema)


def _to_record(
    row: Mapping[str, Any], vector: Vector | None = None, summary: Vector | None = None
) -> Record:
    fields = {
        name: value
        for name, value in row.items()
        if value is not None and name not in _OWN_COLUMNS and name not in ("_distance", "_score")
    }
    return Record(row["id"], vector, row.get("text", ""), fields, row.get("tokens"), summary)


def _matrix(batch: pa.RecordBatch, name: str) -> Vector:
    column = batch.column(name)
    flat = np.asarray(column.flatten()).reshape(-1, column.type.list_size)
    return np.asarray(flat, dtype=np.float32)

"""A store in PostgreSQL with pgvector, which many machines may read and write.

An index is a schema of the database: a table of items, with a typed column a field, and what the
store knows of itself. Vectors are exact below 100,000 rows, and a graph (HNSW) beyond.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool

from mmembed.errors import InputError, MmembedError
from mmembed.search.filter_parser import compile_filter
from mmembed.search.filters import POSTGRES, In, to_sql
from mmembed.search.postgres_rows import COLUMN_TYPES, fields_of, given, kept, record_of, row_of
from mmembed.search.postgres_words import WORDS, ranked_by_words
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

__all__ = ["PostgresStore", "StoreServerError"]

_Connection: TypeAlias = psycopg.Connection[DictRow]

_MAX_NAME_BYTES = 63  # of a column; longer ones are cut without an error
_PAGE = 500
_CONNECTIONS = 8
# As on disk: below it an exact scan is fast enough, and an approximate index gains little.
_MIN_INDEXED_ROWS = 100_000
# What an HNSW index of pgvector can hold, of float32 and of half floats.
_MAX_INDEXED_DIM, _MAX_INDEXED_SUMMARY_DIM = 2000, 4000
# Candidates that a search of the graph looks at; those that a filter drops are replaced.
_SETTINGS = "SET hnsw.ef_search = 200; SET hnsw.iterative_scan = strict_order"


class StoreServerError(MmembedError, RuntimeError):
    """The database cannot be reached, or failed; the message is its own. Nothing was written."""


class PostgresStore:
    """A :class:`~mmembed.search.store.VectorStore` in a schema of a database.

    Every write is one transaction. Writes of several processes and machines take turns, each
    whole; of two to the same id the last stays. Within one process a second thread that writes
    is refused, as by every store.

    Args:
        url: ``postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE`` as libpq reads it.
        name: the schema.

    Raises:
        StoreServerError: the database cannot be reached, or has no pgvector.
    """

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._pool = _opened(url, name)
        with self._connected() as connection:
            about = connection.execute("SELECT * FROM about").fetchone()
        assert about is not None
        self._dim, self._summary_dim = int(about["dim"]), int(about["summary_dim"])
        self._meta: dict[str, str] = about["meta"]

    @staticmethod
    def exists(url: str, name: str) -> bool:
        """Whether the schema holds a store."""
        with _naming_trouble(name), psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'items'", [name]
            )
            return found.fetchone() is not None

    @classmethod
    def create(
        cls,
        url: str,
        name: str,
        *,
        dim: int,
        fields: Mapping[str, FieldType] | None = None,
        meta: Mapping[str, str] | None = None,
        summary_dim: int = 0,
    ) -> PostgresStore:
        """Make an empty store.

        Raises:
            FileExistsError: there is one already.
            InputError: a field name is not usable.
            StoreServerError: see above.
        """
        _check_names(fields or {}, {})
        late = f"tokens bytea NOT NULL, summary halfvec({summary_dim}) NOT NULL, "
        columns = "".join(
            f', "{field}" {COLUMN_TYPES[kind]}' for field, kind in (fields or {}).items()
        )
        with _naming_trouble(name), psycopg.connect(url) as connection:
            _take_turn(connection, name)
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(name)))
            _look_into(connection, name)
            try:
                connection.execute(
                    'CREATE TABLE items (id text COLLATE "C" PRIMARY KEY, '
                    f'text text COLLATE "C" NOT NULL, vector vector({dim}) NOT NULL, '
                    f"{late if summary_dim else ''}_words tsvector NOT NULL{columns})"
                )
            except psycopg.errors.DuplicateTable:
                raise FileExistsError(f"{name}: holds an index already") from None
            connection.execute("CREATE INDEX ON items USING gin (_words)")
            connection.execute("CREATE TABLE about (dim int, summary_dim int, meta json)")
            about = [dim, summary_dim, json.dumps(dict(meta or {}))]
            connection.execute("INSERT INTO about VALUES (%s, %s, %s)", about)
        return cls(url, name)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def summary_dim(self) -> int:
        return self._summary_dim

    @property
    def fields(self) -> Mapping[str, FieldType]:
        with self._connected() as connection:
            return _fields(connection)

    @property
    def meta(self) -> Mapping[str, str]:
        return dict(self._meta)

    @contextmanager
    def writing(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StoreLockedError(f"{self._name}: another thread is writing to this store")
        try:
            yield
        finally:
            self._lock.release()

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        with self._turn() as connection:
            known = _fields(connection)
            _check_names(fields, known)
            for name, kind in fields.items():
                if name not in known:
                    connection.execute(f'ALTER TABLE items ADD "{name}" {COLUMN_TYPES[kind]}')

    def upsert(self, records: Sequence[Record]) -> None:
        with self._turn() as connection:
            fields = _fields(connection)
            checked = check_records(records, self._dim, fields, self._summary_dim)
            rows = [row_of(record, fields) for record in checked]
            if not rows:
                return
            values = ", ".join(
                WORDS.format("%(_words)s") if name == "_words" else f"%({name})s"
                for name in rows[0]
            )
            news = ", ".join(f'"{name}" = EXCLUDED."{name}"' for name in rows[0])
            with connection.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO items ({_quoted(rows[0])}) VALUES ({values}) "
                    f"ON CONFLICT (id) DO UPDATE SET {news}",
                    rows,
                )

    def delete(self, where: FilterLike) -> int:
        with self._turn() as connection:
            predicate = _predicate(where, _fields(connection))
            return connection.execute(f"DELETE FROM items WHERE {predicate}", {}).rowcount

    def search(self, vector: Vector, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        query = check_query_vector(vector, self._dim)
        with self._connected() as connection:
            fields = _fields(connection)
            found = connection.execute(
                f"SELECT {_quoted(_light(fields))}, 1 - (vector <=> %(query)s) AS _score FROM items"
                f" WHERE {_predicate(where, fields)} ORDER BY vector <=> %(query)s LIMIT %(k)s",
                {"query": query, "k": max(k, 0)},
            )
            return [StoreHit(record_of(row), row["_score"]) for row in found]

    def search_text(self, query: str, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        with self._connected() as connection:
            fields = _fields(connection)
            predicate = _predicate(where, fields)
            if k < 1:
                return []
            found = ranked_by_words(connection, query, k, _quoted(_light(fields)), predicate)
            return [StoreHit(record_of(row), row["_score"]) for row in found]

    def search_summary(
        self, vector: Vector, k: int, where: FilterLike | None = None
    ) -> list[tuple[str, float]]:
        query = check_summary("query vector", vector, self._summary_dim)
        with self._connected() as connection:
            found = connection.execute(
                "SELECT id, -(summary <#> %(query)s) AS score FROM items "
                f"WHERE {_predicate(where, _fields(connection))} "
                "ORDER BY summary <#> %(query)s LIMIT %(k)s",
                {"query": HalfVector(query.astype(np.float16)), "k": max(k, 0)},
            )
            return [(given(row["id"]), row["score"]) for row in found]

    def scan_tokens(self, where: FilterLike | None = None) -> Iterator[tuple[str, bytes]]:
        for row in self._rows(where, ["id", "tokens"]):
            yield given(row["id"]), row["tokens"]

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        where = In("id", tuple(dict.fromkeys(ids)))
        return {record.id: record for record in self.scan(where, vectors=vectors)}

    def scan(
        self,
        where: FilterLike | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Record]:
        wanted = _light(self.fields) if fields is None else ["id", *fields]
        if vectors:
            wanted = [*wanted, "vector", *(["tokens", "summary"] if self._summary_dim else [])]
        for row in self._rows(where, wanted):
            yield record_of(row)

    def count(self, where: FilterLike | None = None) -> int:
        with self._connected() as connection:
            predicate = _predicate(where, _fields(connection))
            found = connection.execute(f"SELECT count(*) AS n FROM items WHERE {predicate}", {})
            return int(found.fetchall()[0]["n"])

    def stats(self) -> StoreStats:
        with self._connected() as connection:
            size = "SELECT pg_total_relation_size('items') AS n"
            size_in_bytes = int(connection.execute(size).fetchall()[0]["n"])
            kind = "HNSW" if "vector_idx" in _indices(connection, self._name) else None
        return StoreStats(self.count(), self._dim, size_in_bytes, 1, kind, 0, self.fields)

    def optimize(self) -> None:
        """Give room back, count anew, and make the approximate indices once they are worth it."""
        if self.count() >= _MIN_INDEXED_ROWS:
            with self._turn() as connection:
                connection.execute("SET LOCAL maintenance_work_mem = '1GB'")
                if self._dim <= _MAX_INDEXED_DIM:
                    _index(connection, "vector", "vector_cosine_ops")
                if 0 < self._summary_dim <= _MAX_INDEXED_SUMMARY_DIM:
                    _index(connection, "summary", "halfvec_ip_ops")
        with self._connected() as connection:
            connection.autocommit = True  # VACUUM refuses to run in a transaction
            try:
                connection.execute("VACUUM (ANALYZE) items")
            finally:
                connection.autocommit = False

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _connected(self) -> Iterator[_Connection]:
        with _naming_trouble(self._name), self._pool.connection() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[_Connection]:
        """One transaction, while no other process writes to this store."""
        with self.writing(), self._connected() as connection:
            _take_turn(connection, self._name)
            yield connection

    def _rows(self, where: FilterLike | None, columns: Sequence[str]) -> Iterator[DictRow]:
        """In pages, each a statement of its own: who reads may write between two rows."""
        after = ""
        while True:
            with self._connected() as connection:
                predicate = _predicate(where, _fields(connection))
                page = connection.execute(
                    f"SELECT {_quoted(columns)} FROM items WHERE {predicate} AND id > %(after)s "
                    "ORDER BY id LIMIT %(page)s",
                    {"after": after, "page": _PAGE},
                    binary=True,
                ).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]["id"]


def _opened(url: str, name: str) -> ConnectionPool[_Connection]:
    def ready(connection: _Connection) -> None:
        _look_into(connection, name)
        connection.execute(_SETTINGS)
        register_vector(connection)
        connection.commit()

    # A connection that the server has dropped, say at its restart, is replaced unseen.
    return ConnectionPool(
        url,
        connection_class=psycopg.Connection[DictRow],
        kwargs={"row_factory": dict_row},
        min_size=1,
        max_size=_CONNECTIONS,
        configure=ready,
        check=ConnectionPool.check_connection,
        open=True,
    )


@contextmanager
def _naming_trouble(name: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        reason = str(error).strip() or type(error).__name__
        raise StoreServerError(f"{name}: PostgreSQL: {reason.splitlines()[0]}") from error


def _take_turn(connection: psycopg.Connection[Any], name: str) -> None:
    """Wait until no other transaction writes to this store, and keep others waiting."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('mmembed'), hashtext(%s))", [name])


def _look_into(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(SQL("SET search_path = {}, public").format(Identifier(name)))


def _index(connection: _Connection, column: str, kind: str) -> None:
    connection.execute(
        f"CREATE INDEX IF NOT EXISTS {column}_idx ON items USING hnsw ({column} {kind})"
    )


def _indices(connection: _Connection, name: str) -> list[str]:
    found = connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = %s", [name])
    return [row["indexname"] for row in found]


def _fields(connection: _Connection) -> dict[str, FieldType]:
    found = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
        "WHERE attrelid = 'items'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return fields_of({row["attname"]: row["kind"] for row in found})


def _check_names(new: Mapping[str, FieldType], known: Mapping[str, FieldType]) -> None:
    check_fields(new, known)
    for name in new:
        if len(name) > _MAX_NAME_BYTES:
            raise InputError(f"field {name!r}", f"is longer than {_MAX_NAME_BYTES} characters")


def _predicate(where: FilterLike | None, fields: Mapping[str, FieldType]) -> str:
    tree = None if where is None else compile_filter(where, filterable(fields))
    predicate = "TRUE" if tree is None else to_sql(tree, filterable(fields), POSTGRES)
    return f"({kept(predicate)})".replace("%", "%%")


def _light(fields: Mapping[str, FieldType]) -> list[str]:
    return ["id", "text", *fields]


def _quoted(columns: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f'"{name}"' for name in columns)

"""The summaries of token vectors in a table of LanceDB: half floats, ranked by dot product.

LanceDB reads a column from disk for every exact search, which for summaries takes longer than all
else together. Below the size at which an approximate index is built they are therefore kept in
memory, as one matrix of the table's newest version.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mmembed.search.filters import In, to_sql
from mmembed.search.store import Vector

__all__ = ["Summaries", "summary_array", "token_columns"]

_INDEX = "summary_idx"
_COLUMN = "summary"
# Candidates are many, and are scored again by their tokens: a little depth is enough.
_REFINE = 2
# 512 MB of float32.
_MAX_NUMBERS_IN_MEMORY = 1 << 27


def token_columns(summary_dim: int) -> list[pa.Field]:
    """The columns of a table that keeps token vectors; none for a dimension of 0."""
    if not summary_dim:
        return []
    return [
        pa.field("tokens", pa.large_binary(), nullable=False),
        pa.field(_COLUMN, pa.list_(pa.float16(), summary_dim), nullable=False),
    ]


def summary_array(summaries: Vector) -> pa.Array:
    """``(n, summary_dim)`` as the column keeps it."""
    flat = summaries.astype(np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), summaries.shape[1])


class Summaries:
    """Searches over the summaries of one table."""

    def __init__(self, table: Any) -> None:
        self._table = table
        schema = table.schema
        kept = _COLUMN in schema.names
        self.dim = int(schema.field(_COLUMN).type.list_size) if kept else 0
        self._lock = threading.Lock()
        self._version = -1
        self._ids: list[str] = []
        self._matrix: Vector = np.empty((0, self.dim), np.float32)

    def search(
        self, query: Vector, k: int, predicate: str, columns: Sequence[str]
    ) -> list[tuple[dict[str, Any], float]]:
        """The best ``k`` rows that pass an SQL predicate, best first, with their dot products."""
        indexed = any(index.name == _INDEX for index in self._table.list_indices())
        if indexed or predicate != "TRUE" or not self._fits_in_memory():
            return self._search_table(query, k, predicate, columns, indexed)
        ids, matrix = self._newest()
        scores = matrix @ query
        best: list[int] = []
        if len(scores):
            best = np.argpartition(-scores, min(k, len(scores)) - 1)[:k].tolist()
        order = sorted(best, key=lambda i: -scores[i])
        rows = self._rows([ids[i] for i in order], columns)
        return [(rows[ids[i]], float(scores[i])) for i in order if ids[i] in rows]

    def build_index(self, partitions: int) -> None:
        """An approximate index over the summaries, where there is none yet."""
        from lancedb.index import IvfRq

        if not any(index.name == _INDEX for index in self._table.list_indices()):
            config = IvfRq(distance_type="dot", num_partitions=partitions)
            self._table.create_index(_COLUMN, config=config, name=_INDEX)

    def _search_table(
        self, query: Vector, k: int, predicate: str, columns: Sequence[str], indexed: bool
    ) -> list[tuple[dict[str, Any], float]]:
        half = query.astype(np.float16)
        search = self._table.search(half, vector_column_name=_COLUMN).distance_type("dot")
        if indexed:
            search = search.nprobes(50).refine_factor(_REFINE)
        search = search.where(predicate, prefilter=True).select([*columns, "_distance"])
        return [(row, 1.0 - row["_distance"]) for row in search.limit(k).to_arrow().to_pylist()]

    def _fits_in_memory(self) -> bool:
        return bool(self._table.count_rows() * self.dim <= _MAX_NUMBERS_IN_MEMORY)

    def _newest(self) -> tuple[list[str], Vector]:
        with self._lock:
            version = int(self._table.version)
            if version != self._version:
                found = self._table.search().select(["id", _COLUMN]).to_arrow()
                flat = found.column(_COLUMN).combine_chunks().flatten()
                self._matrix = np.asarray(flat).reshape(-1, self.dim).astype(np.float32)
                self._ids = found.column("id").to_pylist()
                self._version = version
            return self._ids, self._matrix

    def _rows(self, ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        if not ids:
            return {}
        predicate = to_sql(In("id", tuple(ids)), {"id": "str"})
        search = self._table.search().where(predicate).select(list(columns))
        return {row["id"]: row for row in search.to_arrow().to_pylist()}

"""The summaries of token vectors in a table of LanceDB: half floats, ranked by dot product.

LanceDB reads a column from disk for every exact search, which for summaries takes longer than all
else together. Below the size at which an approximate index is built they are therefore kept in
memory, as one matrix of the table's newest version.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa

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

    def search(self, query: Vector, k: int, predicate: str) -> list[tuple[str, float]]:
        """Ids of the best ``k`` rows that pass an SQL predicate, with their dot products."""
        if predicate != "TRUE" or not self._fits_in_memory():
            return self._search_table(query, k, predicate)
        ids, matrix = self._newest()
        scores = matrix @ query
        if k < len(scores):
            best = np.argpartition(-scores, k)[:k]
        else:
            best = np.arange(len(scores))
        order = best[np.argsort(-scores[best], kind="stable")]
        return [(ids[i], float(scores[i])) for i in order.tolist()]

    def build_index(self, partitions: int) -> None:
        """An approximate index over the summaries, where there is none yet."""
        from lancedb.index import IvfRq

        if not any(index.name == _INDEX for index in self._table.list_indices()):
            config = IvfRq(distance_type="dot", num_partitions=partitions)
            self._table.create_index(_COLUMN, config=config, name=_INDEX)

    def _search_table(self, query: Vector, k: int, predicate: str) -> list[tuple[str, float]]:
        half = query.astype(np.float16)
        search = self._table.search(half, vector_column_name=_COLUMN).distance_type("dot")
        if any(index.name == _INDEX for index in self._table.list_indices()):
            search = search.nprobes(50).refine_factor(_REFINE)
        search = search.where(predicate, prefilter=True).select(["id", "_distance"])
        found = search.limit(k).to_arrow()
        distances = found.column("_distance").to_pylist()
        return [
            (key, 1.0 - distance)
            for key, distance in zip(found.column("id").to_pylist(), distances, strict=True)
        ]

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

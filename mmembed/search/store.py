"""What a vector store does: records with a vector, a text and typed fields, kept and found again.

Three stores satisfy :class:`VectorStore`: :class:`~mmembed.search.lance_store.LanceStore` on disk,
:class:`~mmembed.search.postgres_store.PostgresStore` in a database, and
:class:`~mmembed.search.memory_store.MemoryStore`, which is exact and serves as the oracle in tests.
Similarity is the cosine. A store knows nothing of media, models or files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, get_args

import numpy as np

from mmembed.errors import InputError, MmembedError
from mmembed.search.filters import FieldType, FilterLike

__all__ = [
    "FieldType",
    "FilterLike",
    "Record",
    "StoreHit",
    "StoreLockedError",
    "StoreStats",
    "Value",
    "Vector",
    "VectorStore",
    "check_fields",
    "check_query_vector",
    "check_records",
    "check_summary",
    "filterable",
    "infer_field_type",
]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Value: TypeAlias = str | int | float | bool | list[str] | None


class StoreLockedError(MmembedError, RuntimeError):
    """Another process or thread is writing to this store; the message names it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a store.

    Attributes:
        id: unique, any non-empty str.
        vector: ``(dim,)`` float32, finite and not zero; None where a read did not ask for it.
        text: what full-text search reads; may be empty.
        fields: typed metadata; a value of None is the same as an absent field.
        tokens: encoded token vectors, in stores that keep them; opaque to the store.
        summary: ``(summary_dim,)`` float32 whose dot product ranks candidates for ``tokens``.
    """

    id: str
    vector: Vector | None = field(default=None, repr=False)
    text: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)
    tokens: bytes | None = field(default=None, repr=False)
    summary: Vector | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoreHit:
    """A record found, and its score: cosine similarity (dense) or BM25 (text); higher is better."""

    record: Record
    score: float


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The state of a store.

    Attributes:
        rows: number of records.
        dim: length of the vectors.
        bytes: size on disk, old versions included; 0 in memory.
        versions: number of versions kept on disk; 1 in memory.
        vector_index: type of the approximate index, or None where search is exact.
        unindexed_rows: rows that the approximate index does not hold yet (they are still found).
        fields: the typed fields.
    """

    rows: int
    dim: int
    bytes: int
    versions: int
    vector_index: str | None
    unindexed_rows: int
    fields: Mapping[str, FieldType]


class VectorStore(Protocol):
    """Records by id, found by vector, by words and by typed fields.

    Filters (see :mod:`mmembed.search.filters`) may name any field, ``id`` and ``text``; they are
    applied before the best ``k`` are chosen. Methods that read never wait for a writer. Every
    write is atomic and durable when the call returns.
    """

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    @property
    def summary_dim(self) -> int:
        """Length of the summaries; 0 in a store that keeps neither them nor tokens."""
        ...

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The typed fields."""
        ...

    @property
    def meta(self) -> Mapping[str, str]:
        """What the creator wrote about the store, e.g. the model's fingerprint; never changes."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold the write lock over several writes (reentrant in one thread).

        Raises:
            StoreLockedError: another process or thread holds it.
        """
        ...

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        """Add typed fields, missing in every record so far; one that exists must have this type.

        Raises:
            InputError: a name is no identifier, is taken, or has another type.
        """
        ...

    def upsert(self, records: Sequence[Record]) -> None:
        """Insert records, replacing those whose id exists, all or none of them.

        Raises:
            InputError: an id is empty or twice in the call, a vector is missing, not finite, zero
                or of another length, tokens or summary are missing where the store keeps them, or
                a field is unknown or has another type.
        """
        ...

    def delete(self, where: FilterLike) -> int:
        """Delete what a filter matches; returns how many records that were."""
        ...

    def search(self, vector: Vector, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        """The ``k`` records of highest cosine similarity to ``(dim,)`` ``vector``, best first.

        Exact in small stores. The records come without their vectors.
        """
        ...

    def search_text(self, query: str, k: int, where: FilterLike | None = None) -> list[StoreHit]:
        """The ``k`` records whose text best matches any of the words (BM25), best first."""
        ...

    def search_summary(
        self, vector: Vector, k: int, where: FilterLike | None = None
    ) -> list[tuple[str, float]]:
        """Ids of the ``k`` records of highest dot product of summary and ``vector``, best first.

        Exact in small stores. With the dot products.
        """
        ...

    def scan_tokens(self, where: FilterLike | None = None) -> Iterator[tuple[str, bytes]]:
        """Id and tokens of every matching record, in no particular order."""
        ...

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records of these ids; an id that is not there is left out."""
        ...

    def scan(
        self,
        where: FilterLike | None = None,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Record]:
        """Every matching record in no particular order, with only ``fields`` read if given.

        ``text`` is read when ``fields`` is None or names it; ``vectors`` reads tokens and
        summaries too.
        """
        ...

    def count(self, where: FilterLike | None = None) -> int:
        """How many records a filter matches; all of them without one."""
        ...

    def stats(self) -> StoreStats:
        """Rows, size and the state of the indices."""
        ...

    def optimize(self) -> None:
        """Compact files, bring the indices up to date and drop old versions."""
        ...

    def close(self) -> None:
        """Release the files and the write lock; the store cannot be used afterwards."""
        ...


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# Every field is a column of every record: far more of them means that names are used as values.
_MAX_FIELDS = 256
_RESERVED = frozenset({"id", "text", "vector", "tokens", "summary"})
_PYTHON_TYPES: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "str"}


def filterable(fields: Mapping[str, FieldType]) -> dict[str, FieldType]:
    """The fields that a filter may name: those of the store, and ``id`` and ``text``."""
    return {"id": "str", "text": "str", **fields}


def infer_field_type(name: str, value: Value) -> FieldType:
    """The type a new field needs in order to hold ``value``, which is not None.

    Raises:
        InputError: no field can hold it.
    """
    if type(value) in _PYTHON_TYPES:
        return _PYTHON_TYPES[type(value)]
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return "list[str]"
    raise InputError(
        f"field {name!r}",
        f"cannot hold {value!r}",
        "a value is a str, int, float, bool or a list of str",
    )


def check_fields(new: Mapping[str, FieldType], known: Mapping[str, FieldType]) -> None:
    """Refuse field names and types that a store cannot add to the ``known`` ones.

    Raises:
        InputError: a name is no identifier, is reserved, or has another type; or they are too many.
    """
    if len({**known, **new}) > _MAX_FIELDS:
        raise InputError(
            f"field {next(iter(new))!r}",
            f"would be one more than the {_MAX_FIELDS} fields a store can have",
            "put what varies into values, not into names",
        )
    folded = {name.lower(): name for name in known}
    for name, kind in new.items():
        source = f"field {name!r}"
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise InputError(
                source,
                "is not a usable name",
                "use ASCII letters, digits and _, begin with a letter; "
                f"{', '.join(sorted(_RESERVED))} are taken",
            )
        if kind not in get_args(FieldType):
            raise InputError(source, f"unknown type {kind!r}")
        # Some engines fold the case of names, so two that differ only in case are one too many.
        other = folded.setdefault(name.lower(), name)
        if other != name:
            raise InputError(source, f"differs from the field {other!r} only in case")
        if known.get(name, kind) != kind:
            raise InputError(source, f"is {known[name]} in this store, not {kind}")


def check_query_vector(vector: Vector, dim: int) -> Vector:
    """A query vector as ``(dim,)`` float32.

    Raises:
        InputError: it has another shape, or is zero or not finite.
    """
    return _check_vector("query vector", vector, dim)


def check_records(
    records: Sequence[Record], dim: int, fields: Mapping[str, FieldType], summary_dim: int = 0
) -> list[Record]:
    """Records as a store may keep them: vectors float32, ints widened where a float is due.

    Raises:
        InputError: see :meth:`VectorStore.upsert`.
    """
    seen: set[str] = set()
    checked = []
    for record in records:
        if not isinstance(record.id, str) or not record.id:
            raise InputError(f"id {record.id!r}", "is not a non-empty str")
        if record.id in seen:
            raise InputError(record.id, "this id is twice in one call", "give each item its own id")
        seen.add(record.id)
        _check_unicode(record.id, record.text)
        values = {
            name: _check_value(record.id, name, value, fields)
            for name, value in record.fields.items()
            if value is not None
        }
        vector = _check_vector(record.id, record.vector, dim)
        tokens, summary = _check_tokens(record, summary_dim)
        checked.append(Record(record.id, vector, record.text, values, tokens, summary))
    return checked


def _check_tokens(record: Record, summary_dim: int) -> tuple[bytes | None, Vector | None]:
    if not summary_dim:
        return None, None
    if not record.tokens:
        raise InputError(record.id, "has no token vectors, which this store keeps")
    return record.tokens, check_summary(record.id, record.summary, summary_dim)


def check_summary(source: str, summary: Vector | None, dim: int) -> Vector:
    """A summary, or the query's counterpart, as ``(dim,)`` float32.

    Raises:
        InputError: it has another shape, is zero or not finite, or the store keeps none.
    """
    if not dim:
        raise InputError(source, "this store keeps no token vectors")
    return _check_vector(f"{source}: summary", summary, dim)


def _check_vector(source: str, vector: Vector | None, dim: int) -> Vector:
    if vector is None:
        raise InputError(source, "has no vector")
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dim,):
        raise InputError(
            source,
            f"its vector has shape {array.shape}, the store holds ({dim},)",
            "use the model that built the store",
        )
    # Neither has a direction, so a cosine would be NaN.
    if not np.isfinite(array).all() or not array.any():
        raise InputError(source, "its vector is zero or not finite")
    return array


def _check_unicode(source: str, *texts: str) -> None:
    # A file name that is not UTF-8 reaches Python with lone surrogates, which no store can keep.
    try:
        for text in (source, *texts):
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = source.encode("utf-8", "backslashreplace").decode()
        raise InputError(shown, "is not valid Unicode", "rename it or fix its encoding") from error


def _check_value(source: str, name: str, value: Value, fields: Mapping[str, FieldType]) -> Value:
    if name not in fields:
        raise InputError(source, f"unknown field {name!r}", "add_fields makes it known")
    kind = infer_field_type(name, value)
    if isinstance(value, str):
        _check_unicode(source, value)
    elif isinstance(value, list | tuple):
        _check_unicode(source, *value)
    if kind == "int" and fields[name] == "float":
        return float(value)  # type: ignore[arg-type]
    if kind != fields[name]:
        raise InputError(source, f"field {name!r} is {fields[name]}, not {kind}: {value!r}")
    if kind == "int" and not -(2**63) <= value < 2**63:  # type: ignore[operator]
        raise InputError(source, f"field {name!r} holds 64-bit integers, {value} is larger")
    if kind == "float" and not math.isfinite(value):  # type: ignore[arg-type]
        raise InputError(source, f"field {name!r} is not finite")
    return list(value) if isinstance(value, tuple) else value

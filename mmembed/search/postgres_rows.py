"""Records as rows of PostgreSQL, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pgvector import HalfVector

from mmembed.errors import InputError
from mmembed.search.postgres_words import words_of
from mmembed.search.store import FieldType, Record

__all__ = ["COLUMN_TYPES", "fields_of", "given", "kept", "record_of", "row_of"]

COLUMN_TYPES: Mapping[FieldType, str] = {
    "str": 'text COLLATE "C"',
    "int": "bigint",
    "float": "double precision",
    "bool": "boolean",
    "list[str]": "text[]",
}
_FIELD_TYPES = {sql.removesuffix(' COLLATE "C"'): kind for kind, sql in COLUMN_TYPES.items()}
_OWN_COLUMNS = frozenset({"id", "text", "vector", "tokens", "summary", "_words", "_score"})
_MAX_ID_BYTES = 2600  # of an entry of a B-tree
# Stands for the null character, which PostgreSQL cannot keep; by Unicode it is no character.
_NULL = "\ufdd0"


def fields_of(columns: Mapping[str, str]) -> dict[str, FieldType]:
    """The typed fields among columns and their types, as PostgreSQL names them."""
    return {name: _FIELD_TYPES[sql] for name, sql in columns.items() if name not in _OWN_COLUMNS}


def row_of(record: Record, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Every column of a record; ``_words`` is yet to become a ``tsvector``.

    Raises:
        InputError: its id is too long.
    """
    if len(record.id.encode()) > _MAX_ID_BYTES:
        raise InputError(record.id[:80], f"this id is longer than {_MAX_ID_BYTES} bytes")
    row: dict[str, Any] = {"id": record.id, "text": record.text, "vector": record.vector}
    row["_words"] = words_of(record.text)
    row |= {name: record.fields.get(name) for name in fields}
    if record.summary is not None:
        row |= {"tokens": record.tokens, "summary": HalfVector(record.summary.astype(np.float16))}
    return {name: kept(value) for name, value in row.items()}


def record_of(row: Mapping[str, Any]) -> Record:
    """The record of a row, with what was read of it."""
    vector, summary = row.get("vector"), row.get("summary")
    fields = {
        name: given(value)
        for name, value in row.items()
        if name not in _OWN_COLUMNS and value is not None
    }
    return Record(
        given(row["id"]),
        None if vector is None else vector.to_numpy().astype(np.float32),
        given(row.get("text") or ""),
        fields,
        row.get("tokens"),
        None if summary is None else summary.to_numpy().astype(np.float32),
    )


def kept(value: Any) -> Any:
    """A value, or a statement, in characters that PostgreSQL can keep."""
    return _replaced(value, "\0", _NULL)


def given(value: Any) -> Any:
    """What was given to be :func:`kept`."""
    return _replaced(value, _NULL, "\0")


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    return [each.replace(old, new) for each in value] if isinstance(value, list) else value

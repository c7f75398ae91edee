"""From the parts of a finished job to one table, or into an index; again and again if need be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.bulk.job import Job
from mmembed.errors import ConfigError, InputError
from mmembed.search.identity import utf8
from mmembed.search.layout import FIELDS, describe_model, locate
from mmembed.search.model import EmbeddingModel
from mmembed.search.results import AddReport
from mmembed.search.store import Record, Value
from mmembed.search.writer import RowWriter

__all__ = ["into_index", "into_lance"]

_ROWS = 4096


def into_lance(job: Job, target: Path) -> int:
    """Write every row of a finished job to a Lance table, in one commit; returns their number.

    Args:
        target: ``FOLDER/NAME.lance``; what was there is replaced.

    Raises:
        ConfigError: shards are missing, or ``target`` has another suffix.
    """
    import lancedb

    if target.suffix != ".lance":
        raise ConfigError(f"{target}: a Lance table is a folder whose name ends in .lance")
    _check_done(job)
    parts = [job.part(shard) for shard in job.shards]
    schema = pq.read_schema(parts[0])
    reader = pa.RecordBatchReader.from_batches(schema, (b for p in parts for b in _batches(p)))
    table = lancedb.connect(target.parent.absolute()).create_table(
        target.stem, data=reader, schema=schema, mode="overwrite"
    )
    return int(table.count_rows())


def into_index(job: Job, target: Path, model: EmbeddingModel) -> AddReport:
    """Put every row of a finished job into an index, where rows of the same id are replaced.

    Metadata become fields; what no field can hold (nested values) is kept as JSON text.

    Raises:
        ConfigError: shards are missing.
        IndexMismatchError: the index belongs to another model.
    """
    from mmembed.search.lance_store import LanceStore
    from mmembed.search.layout import check_model

    _check_done(job)
    job.agree_on(model.fingerprint)
    dim = job.settings.dim or model.dim
    location = locate(target, LanceStore.exists(target))
    if LanceStore.exists(location.folder):
        store = LanceStore.open(location.folder)
        check_model(location, {**store.meta}, store.dim, None)
        if (store.dim, store.meta.get("model_fingerprint")) != (dim, model.fingerprint):
            raise ConfigError(f"{target}: this index was made by another model or of other size")
    else:
        meta = describe_model(model)
        store = LanceStore.create(location.folder, dim=dim, fields=FIELDS, meta=meta)
    report = AddReport()
    with store.writing():
        writer = RowWriter(store, report, "skip", None)
        for shard in job.shards:
            for batch in _batches(job.part(shard)):
                _write(batch, writer)
        writer.flush()
        store.optimize()
    return report


def _write(batch: pa.RecordBatch, writer: RowWriter) -> None:
    column = batch.column("vector")
    flat = np.asarray(column.flatten()).reshape(-1, column.type.list_size)
    vectors = flat.astype(np.float32)
    for row, vector in zip(batch.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
        fields = _file_fields(row)
        metadata = json.loads(row["metadata"]) if row["metadata"] else {}
        for name, value in metadata.items():
            fields[_field_name(name)] = _plain(value)
        try:
            utf8(row["id"])
            writer.write(Record(row["id"], vector, row["text"], fields), "added")
        except InputError as error:
            writer.skip(error)


def _file_fields(row: dict[str, Any]) -> dict[str, Value]:
    path, _, part = (row["path"] or "").partition("#")
    page = re.fullmatch(r"page=(\d+)", part)
    return {
        "modality": row["modality"],
        "path": path or None,
        "page": None if page is None else int(page[1]),
    }


def _field_name(name: str) -> str:
    """A name that a field can have, for any key of a row."""
    usable = re.sub(r"[^A-Za-z0-9_]", "_", name)
    usable = usable if usable[:1].isalpha() else f"m_{usable}"
    taken = usable.lower() in {*FIELDS, "id", "text", "vector", "tokens", "summary"}
    return f"{usable}_"[:64] if taken else usable[:64]


def _plain(value: Any) -> Value:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return list(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _batches(part: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(part) as file:
        yield from file.iter_batches(_ROWS)


def _check_done(job: Job) -> None:
    done, _ = job.total()
    if done < len(job.shards):
        raise ConfigError(
            f"{job.folder}: {done} of {len(job.shards)} shards are done; run the job to its end"
        )

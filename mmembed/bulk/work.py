"""What a worker does: take a shard, embed its rows, put its files in place."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.bulk.job import Counts, Job, Settings, replacing
from mmembed.bulk.reading import BadRow, Row, rows_of
from mmembed.bulk.shards import Shard
from mmembed.encoded import Encoded
from mmembed.errors import ConfigError, InputError
from mmembed.inputs.items import Item
from mmembed.search.identity import main_modality, text_of
from mmembed.search.model import EmbeddingModel

__all__ = ["LoadModel", "do_shard", "part_schema", "work"]

LoadModel: TypeAlias = Callable[[], EmbeddingModel]

_WRITE_ROWS = 4096
_MAX_TEXT = 8192
_ERRORS = pa.schema(
    [pa.field(name, pa.string()) for name in ("id", "source", "reason", "hint")],
)
# Before so many rows a share says nothing.
_JUDGED_FROM = 200


def work(job: Job, load: LoadModel, mine: Sequence[Shard]) -> None:
    """Do those of some shards that nobody has done or is at.

    Raises:
        ConfigError: more than ``max_error_rate`` of a shard's rows are bad.
        InputError: an input file is gone or has changed.
    """
    model: EmbeddingModel | None = None
    for shard in mine:
        with job.lease(shard) as held:
            if not held or job.counts(shard) is not None:
                continue
            if model is None:
                model = load()
                job.agree_on(model.fingerprint)
            do_shard(job, shard, model)


def do_shard(job: Job, shard: Shard, model: EmbeddingModel) -> Counts:
    """Embed one shard and mark it as done; the caller holds its lease."""
    started = time.perf_counter()
    settings = job.settings
    dim = settings.dim or model.dim
    if not 0 < dim <= model.dim:
        raise ConfigError(f"dim={dim}: this model has vectors of {model.dim} dimensions")
    errors: list[dict[str, str]] = []
    rows = 0
    with replacing(job.part(shard)) as temporary:
        schema = part_schema(dim, settings.dtype)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            batch: list[tuple[Row, Encoded]] = []
            for row, result in _encoded(shard, model, settings, errors):
                batch.append((row, result))
                rows += 1
                if len(batch) == _WRITE_ROWS:
                    writer.write_table(_table(batch, dim, schema))
                    batch.clear()
                _judge(shard, rows, len(errors), settings.max_error_rate)
            if batch:
                writer.write_table(_table(batch, dim, schema))
        _judge(shard, rows, len(errors), settings.max_error_rate)
    if errors:
        with replacing(job.errors(shard)) as temporary:
            pq.write_table(pa.Table.from_pylist(errors, schema=_ERRORS), temporary)
    counts = Counts(rows, len(errors), time.perf_counter() - started)
    job.finish(shard, counts)
    return counts


def part_schema(dim: int, dtype: str) -> pa.Schema:
    """Columns of a part: id, vector, text, modality, path, and metadata as JSON."""
    kind = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(kind, dim), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            pa.field("path", pa.string()),
            pa.field("metadata", pa.string()),
        ]
    )


def _encoded(
    shard: Shard, model: EmbeddingModel, settings: Settings, errors: list[dict[str, str]]
) -> Iterator[tuple[Row, Encoded]]:
    waiting: deque[Row] = deque()

    def items() -> Iterator[Item]:
        # Read ahead, maybe from another thread, by as much as the model asks for and no more.
        for row in rows_of(shard):
            if isinstance(row, BadRow):
                errors.append(_error(row.id, row.error))
                continue
            waiting.append(row)
            yield row.item

    role = cast(Literal["query", "document"], settings.role)
    for encoded in model.encode_stream(items(), role=role):
        row = waiting.popleft()
        if encoded.vector is None or not np.isfinite(encoded.vector).all():
            reason = encoded.error or InputError(row.id, "the model gave no finite vector")
            errors.append(_error(row.id, reason))
            continue
        yield row, encoded


def _error(key: str, error: InputError) -> dict[str, str]:
    return {"id": key, "source": error.source, "reason": error.reason, "hint": error.hint}


def _judge(shard: Shard, rows: int, errors: int, limit: float) -> None:
    seen = rows + errors
    if seen >= _JUDGED_FROM and errors > limit * seen:
        raise ConfigError(
            f"{shard.source}: {errors} of {seen} rows are bad, more than the share of {limit:g} "
            "that --max-error-rate allows"
        )


def _table(batch: Sequence[tuple[Row, Encoded]], dim: int, schema: pa.Schema) -> pa.Table:
    vectors = np.stack([encoded.vector[:dim] for _, encoded in batch if encoded.vector is not None])
    if dim < len(batch[0][1].vector):  # type: ignore[arg-type]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    kind = schema.field("vector").type.value_type.to_pandas_dtype()
    flat = pa.array(vectors.astype(kind).reshape(-1))
    columns: dict[str, Any] = {
        "id": [row.id for row, _ in batch],
        "vector": pa.FixedSizeListArray.from_arrays(flat, dim),
        "text": [_text(row, encoded) for row, encoded in batch],
        "modality": [main_modality(row.item) for row, _ in batch],
        "path": [row.path for row, _ in batch],
        "metadata": [_metadata(row) for row, _ in batch],
    }
    return pa.table(columns, schema=schema)


def _text(row: Row, encoded: Encoded) -> str:
    words = "\n".join(filter(None, (text_of(row.item), encoded.text)))[:_MAX_TEXT]
    return words.encode("utf-8", "replace").decode()


def _metadata(row: Row) -> str | None:
    return json.dumps(row.metadata, ensure_ascii=False, default=str) if row.metadata else None

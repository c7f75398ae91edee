"""Rows to embed, and what a job made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bulk_model import vector_of

from mmembed.bulk.job import Job


def write_lines(path: Path, count: int, first: int = 0) -> None:
    rows = ({"id": f"r{i}", "text": f"text {i}", "n": i} for i in range(first, first + count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_in(job: Job) -> dict[str, dict[str, Any]]:
    rows = [row for shard in job.shards for row in pq.read_table(job.part(shard)).to_pylist()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


def errors_in(job: Job) -> dict[str, str]:
    files = [job.errors(shard) for shard in job.shards if job.errors(shard).exists()]
    return {row["id"]: row["reason"] for file in files for row in pq.read_table(file).to_pylist()}


def check(job: Job, ids: range) -> None:
    found = rows_in(job)
    assert set(found) == {f"r{i}" for i in ids}
    for key, row in list(found.items())[:: max(1, len(found) // 50)]:
        wanted = vector_of(f"text {key[1:]}".encode())
        np.testing.assert_allclose(row["vector"], wanted, atol=1e-3)
        assert (row["text"], row["modality"]) == (f"text {key[1:]}", "text")
        assert json.loads(row["metadata"]) == {"n": int(key[1:])}

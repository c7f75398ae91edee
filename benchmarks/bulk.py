"""Bulk embedding: what the job costs beside a plain loop over the same model, and two workers.

    python benchmarks/bulk.py [--texts 2000] [--rounds 3] [--threads 1] [--ray]

Texts are docstrings of the Python standard library, embedded by ``mini``. The plain loop reads the
JSONL, embeds by ``encode_stream``, and writes one Parquet file; the job does the same by shards,
with leases, atomic files and done markers. Rounds take turns, and the overhead is taken within a
round, by the clock and by processor time. Runs with workers are whole runs: each process starts
and loads its model, so their rate is of the rows alone and of all together.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from encode_text import docstrings
from machine import facts, write_result

from mmembed import Embedder
from mmembed.bulk import shards
from mmembed.bulk.job import Job, Settings
from mmembed.bulk.runner import run_local
from mmembed.bulk.shards import cut


def plain(model: Embedder, source: Path, target: Path) -> None:
    with source.open() as lines:
        rows = [json.loads(line) for line in lines]
    found = model.encode_stream((row["text"] for row in rows), role="document")
    vectors = np.stack([each.vector for each in found if each.vector is not None])
    flat = pa.array(vectors.astype(np.float16).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    ids, texts = [row["id"] for row in rows], [row["text"] for row in rows]
    pq.write_table(pa.table({"id": ids, "text": texts, "vector": column}), target)


def load(threads: int) -> Embedder:
    torch.set_num_threads(threads)
    return Embedder.from_pretrained("mini", device="cpu")


def timed(work: Any) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    source = folder / "in.jsonl"
    texts = docstrings(options.texts)
    with source.open("w") as stream:
        for i, text in enumerate(texts):
            stream.write(json.dumps({"id": str(i), "text": text}) + "\n")
    # Shards of a twelfth, so that there is something to hand out.
    shards._JSONL_BYTES = source.stat().st_size // 12
    model = load(options.threads)
    plain(model, source, folder / "warm.parquet")
    rounds: list[dict[str, tuple[float, float]]] = []

    def job(name: str) -> Job:
        return Job.start(folder / name, Settings(), cut(str(source)))

    for number in range(options.rounds):
        single = job(f"single{number}")
        rounds.append(
            {
                "plain": timed(lambda: plain(model, source, folder / "plain.parquet")),
                "job": timed(lambda: run_local(single, lambda: model)),  # noqa: B023
            }
        )
        print(rounds[-1], flush=True)
    starting, _ = timed(lambda: load(options.threads))
    workers: dict[str, Any] = {}
    for count in (1, 2):
        made = job(f"workers{count}")
        wall, _ = timed(
            lambda made=made, count=count: run_local(
                made, partial(load, options.threads), workers=count
            )
        )
        workers[f"local, {count}"] = {"seconds": wall, "rows_per_second": len(texts) / wall}
        print(workers, flush=True)
    if options.ray:
        from mmembed.bulk.ray_runner import run_ray

        for count in (1, 2):
            made = job(f"ray{count}")
            wall, _ = timed(
                lambda made=made, count=count: run_ray(
                    made, partial(load, options.threads), workers=count
                )
            )
            workers[f"ray, {count}"] = {"seconds": wall, "rows_per_second": len(texts) / wall}
            print(workers, flush=True)
    shutil.rmtree(folder)
    ratios = {
        name: [one["job"][i] / one["plain"][i] for one in rounds]
        for i, name in enumerate(("time", "processor_time"))
    }
    seconds = statistics.median(one["job"][1] for one in rounds)
    result = {
        "machine": facts("torch", "pyarrow", "ray"),
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "shards": len(cut(str(source))) if source.exists() else 12,
        "threads": options.threads,
        "rounds": rounds,
        "job / plain": {name: statistics.median(values) for name, values in ratios.items()},
        "items_per_processor_second": len(texts) / seconds,
        "loading_seconds": starting,
        "whole_runs": workers,
    }
    print(json.dumps(result, indent=1), write_result("bulk", result))


if __name__ == "__main__":
    main()

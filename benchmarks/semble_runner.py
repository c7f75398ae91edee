"""Run inside semble's own environment by code_quality.py: ``semble_runner.py REPO QUERIES K``.

Prints JSON: what each query found, and its seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from semble import SembleIndex


def main() -> None:
    repo, queries, k = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
    index = SembleIndex.from_path(repo)
    index.search(queries[0], top_k=k)
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        results = index.search(query, top_k=k)
        seconds.append(time.perf_counter() - start)
        found.append(
            [(str(r.chunk.file_path), r.chunk.start_line, r.chunk.end_line) for r in results]
        )
    sys.stdout.write(json.dumps({"found": found, "seconds": seconds}))


if __name__ == "__main__":
    main()

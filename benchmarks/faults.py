"""Malformed requests to the whole server: how each was answered, and what went wrong.

    python benchmarks/faults.py [--requests 10000] [--seed 1] [--examples 60]

The requests are those of tests/server/malformed.py, and then, where schemathesis is installed, so
many an operation that it makes of the server's own schema. They are sent in one process to the
page, the index, and the API over tiny random models. A 5xx, a trace, a path, or an error without
OpenAI's body is a fault; afterwards the index must answer as before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from machine import facts, peak_memory, write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "server"))
from colour_model import COLOURS, ColourModel
from fastapi.testclient import TestClient
from malformed import Requests, fault
from PIL import Image
from schema_faults import schema_faults

from mmembed import Embedder, Reranker
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.search.index import Index
from mmembed.server.api.service import Service
from mmembed.server.app import create_app
from mmembed.server.indexing import Indexing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=60)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    media = folder / "media"
    media.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 48), colour).save(media / f"{name}.png")
    Image.new("RGB", (300, 400), COLOURS["red"]).save(media / "page.pdf")
    model = Embedder.from_pretrained(tiny_towers("blip2", folder / "blip2"), device="cpu")
    judge = Reranker.from_pretrained(tiny_towers("blip", folder / "blip"), device="cpu")
    index = Index.open(media, ColourModel())
    index.add(media)
    (folder / "more").mkdir()
    app = create_app(
        index,
        ColourModel(),
        media_roots=[media],
        service=Service.of({"small": model}, {"judge": judge}),
        indexing=Indexing(index, [folder / "more"]),
        show_folder=lambda file: None,
    )
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    slowest = 0.0
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:

        def names() -> list[str]:
            found = client.get("/api/search", params={"q": "red"}).json()["results"]
            return [each["id"] for each in found]

        before = names()
        requests = Requests(options.seed, before)
        memory = peak_memory()
        started = time.perf_counter()
        for number in range(options.requests):
            method, path, how = requests.next()
            begun = time.perf_counter()
            answer = client.request(method, path, **how)
            slowest = max(slowest, time.perf_counter() - begun)
            statuses[answer.status_code] += 1
            if found := fault(answer.status_code, answer.text):
                faults.append(f"{number} {method} {path}: {found}")
        seconds = time.perf_counter() - started
        try:
            operations, found_by_schema = schema_faults(app, client, options.examples)
        except ImportError:
            operations, found_by_schema = Counter({"schemathesis is not installed": 0}), []
        same = names() == before
    result = {
        "machine": facts("fastapi", "starlette", "pydantic", "schemathesis"),
        "requests": options.requests,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "slowest_seconds": round(slowest, 2),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "faults": faults[:50],
        "fault_count": len(faults),
        "of the schema": {
            "requests": operations.total(),
            "operations": dict(operations),
            "faults": found_by_schema[:50],
            "fault_count": len(found_by_schema),
        },
        "the index answers as before": same,
        "peak_memory_mb": {"before": round(memory), "after": round(peak_memory())},
    }
    print(json.dumps(result, indent=1), write_result("faults", result))


if __name__ == "__main__":
    main()

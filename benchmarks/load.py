"""Many clients at mixed modalities: errors, times, memory, and whether answers stay the same.

    python benchmarks/load.py [--clients 64] [--minutes 10] [--threads 2]

The server (``mini``: the API, and the page over a small index of photos) runs in a process of its
own. Each client takes requests from one list in an order of its own: texts, a photo, a page, a
clip, and searches. Before, each request is sent alone, and that answer is what the others must
equal (vectors to 1e-4). An answer that is neither 200 nor 429 is an error. Memory is that of the
server's process, read from /proc every second.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from encode_text import docstrings
from machine import facts, write_result
from server import wait_for

PORT = 8713
SAMPLES = Path(__file__).parents[1] / "data" / "samples"

Request = tuple[str, str, str, dict[str, Any] | None]


def serve(folder: str, threads: int) -> None:
    import torch
    import uvicorn

    from mmembed import Embedder
    from mmembed.search.index import Index
    from mmembed.server.api.service import Service
    from mmembed.server.app import create_app
    from mmembed.server.memory import keep_memory_flat

    keep_memory_flat()
    torch.set_num_threads(threads)
    model = Embedder.from_pretrained("mini", device="cpu")
    index = Index.open(folder, model)
    index.add(docstrings(200))
    app = create_app(index, model, service=Service.of({"mini": model}))
    uvicorn.run(app, port=PORT, log_level="error")


def requests() -> list[Request]:
    def medium(kind: str, pattern: str, count: int) -> list[Request]:
        files = sorted(SAMPLES.glob(pattern))[:count]
        bodies = [base64.b64encode(file.read_bytes()).decode() for file in files]
        return [(kind, "POST", "/v1/embeddings", {"input": [{kind: body}]}) for body in bodies]

    texts = docstrings(60)
    found: list[Request] = [("text", "POST", "/v1/embeddings", {"input": [t]}) for t in texts[:40]]
    found += [("search", "POST", "/v1/search", {"query": text[:200]}) for text in texts[40:60]]
    found += medium("image", "photos/**/*.jpg", 8)
    found += medium("document", "pages/**/*.pdf", 2) + medium("video", "clips/emoji/*.mp4", 2)
    return found


def send(connection: HTTPConnection, request: Request) -> tuple[int, bytes]:
    _, method, path, body = request
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def told(request: Request, content: bytes) -> Any:
    """What must be the same each time."""
    answer = json.loads(content)
    if request[0] == "search":
        return [each["id"] for each in answer["results"]]
    return np.array(answer["data"][0]["embedding"], np.float32)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        # Equal scores may trade places.
        return set(one) == set(other) or len(set(one) & set(other)) >= len(one) - 1
    return bool(np.abs(one - other).max() < 1e-4)


def memory_of(process: int) -> float:
    """Resident megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads)
        return
    folder = tempfile.mkdtemp()
    command = [sys.executable, __file__, "--serve", folder, "--threads", str(options.threads)]
    server = subprocess.Popen(command)
    asked = requests()
    times: dict[str, list[float]] = defaultdict(list)
    outcomes: Counter[str] = Counter()
    memory: list[float] = []
    lock = threading.Lock()
    try:
        wait_for(PORT)
        alone = HTTPConnection("127.0.0.1", PORT, timeout=300)
        serial = []
        for request in asked:
            status, content = send(alone, request)
            assert status == 200, content[:300]
            serial.append(told(request, content))
        end = time.perf_counter() + options.minutes * 60

        def client(number: int) -> None:
            rng = random.Random(number)
            connection = HTTPConnection("127.0.0.1", PORT, timeout=300)
            while (start := time.perf_counter()) < end:
                at = rng.randrange(len(asked))
                try:
                    status, content = send(connection, asked[at])
                except (OSError, HTTPException) as error:
                    connection.close()
                    status, content = 0, repr(error).encode()
                if status == 200:
                    known = same(serial[at], told(asked[at], content))
                    outcome = "answered" if known else "another answer"
                else:
                    outcome = "429" if status == 429 else f"error {status} {content[:80]!r}"
                    time.sleep(0.2)
                with lock:
                    outcomes[outcome] += 1
                    times[asked[at][0]].append(time.perf_counter() - start)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(options.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(memory_of(server.pid))
            time.sleep(1)
    finally:
        server.terminate()
        server.wait(60)
    third = max(1, len(memory) // 3)
    result = {
        "machine": facts("fastapi", "uvicorn", "torch"),
        "clients": options.clients,
        "minutes": options.minutes,
        "threads": options.threads,
        "outcomes": dict(outcomes),
        "requests_a_second": round(sum(outcomes.values()) / (options.minutes * 60), 2),
        "seconds": {
            kind: {
                "count": len(taken),
                "p50": round(float(np.percentile(taken, 50)), 3),
                "p95": round(float(np.percentile(taken, 95)), 3),
            }
            for kind, taken in times.items()
        },
        "memory_mb": {
            "mean of the first third": round(float(np.mean(memory[:third])), 1),
            "mean of the second third": round(float(np.mean(memory[third : 2 * third])), 1),
            "mean of the last third": round(float(np.mean(memory[-third:])), 1),
            "most": round(max(memory), 1),
        },
    }
    print(json.dumps(result, indent=1), write_result("load", result))


if __name__ == "__main__":
    main()

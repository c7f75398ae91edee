"""``kill -9`` of a server while it writes, and clients that stop in the middle of a body."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from browsing import free_port, wait_until
from colour_model import ColourModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from mmembed.search.index import Index
from mmembed.search.lance_store import LanceStore
from mmembed.server.errors import RequestError
from mmembed.server.security import Guard

WORKER = Path(__file__).with_name("serving_worker.py")


@contextmanager
def served(folder: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A server process that answers; it is killed in the end."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(WORKER), str(folder), str(port)])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def answers() -> bool:
            assert process.poll() is None
            try:
                return client.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(answers)
            yield client, process
        finally:
            process.kill()
            process.wait()


def items_in(folder: Path) -> list[str]:
    if not LanceStore.exists(folder / "index"):
        return []
    return sorted(record.id for record in LanceStore.open(folder / "index").scan(fields=[]))


def test_kills_of_the_server_lose_and_double_nothing(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    files = {tmp_path / "media" / f"{i}.txt": f"red note {i}" for i in range(400)}
    for file, text in files.items():
        file.write_text(text)
    kept: list[str] = []

    def state(client: httpx.Client) -> dict[str, Any]:
        found: dict[str, Any] = client.get("/api/index").json()
        assert found["state"] in ("running", "done")
        return found

    for _ in range(2):
        wanted = min(len(kept) + 1, len(files))
        with served(tmp_path) as (client, process):
            assert client.post("/api/index", json={"root": "media"}).status_code == 202
            assert client.get("/api/search", params={"q": "red"}).status_code == 200
            wait_until(lambda wanted=wanted: len(items_in(tmp_path)) >= wanted)
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = items_in(tmp_path)
        assert len(found) == len(set(found))
        assert set(kept) <= set(found)  # what was written stays
        kept = found
    with served(tmp_path) as (client, _):
        client.post("/api/index", json={"root": "media"})
        wait_until(lambda: state(client)["state"] == "done")
        last = state(client)
        assert (last["added"], last["unchanged"]) == (len(files) - len(kept), len(kept))
        assert (
            len(client.get("/api/search", params={"q": "red", "k": 200}).json()["results"]) == 200
        )
    assert len(items_in(tmp_path)) == len(set(items_in(tmp_path))) == len(files)
    with Index.open(tmp_path / "index", ColourModel()) as index:
        assert index.search("note 399", 1, mode="text")[0].text == "red note 399"


def test_a_body_that_stops_coming_is_given_up() -> None:
    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        answer: Response
        try:
            answer = PlainTextResponse(await Request(scope, receive).body())
        except RequestError as error:
            answer = PlainTextResponse(error.reason, error.status_code)
        await answer(scope, receive, send)

    guard = Guard(reading, None, 1000, patience=0.05)
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}

    def asked(*pieces: dict[str, Any]) -> tuple[int, bytes]:
        coming, sent = list(pieces), []

        async def receive() -> Any:
            if not coming:
                await asyncio.sleep(1000)
            return coming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(guard(scope, receive, send))
        return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])

    half = {"type": "http.request", "body": b"half", "more_body": True}
    assert asked(half) == (408, b"body: nothing came for 0.05 seconds")
    assert asked(half, {"type": "http.request", "body": b" whole"}) == (200, b"half whole")

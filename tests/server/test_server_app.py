"""The application as a whole: state, headers, hosts, and errors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from colour_model import ColourModel
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mmembed.errors import ConfigError, InputError
from mmembed.search.index import Index
from mmembed.server.app import create_app, run
from mmembed.server.worker import ModelWorker


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    deadline = time.monotonic() + 60
    while client.get("/ready").status_code != 200:
        assert time.monotonic() < deadline
    assert client.get("/ready").json() == {"status": "ready"}


def test_not_ready_when_the_model_fails(colour_index: Index) -> None:
    class Broken(ColourModel):
        def encode_stream(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("no weights")

    with TestClient(create_app(colour_index, Broken()), base_url="http://127.0.0.1") as client:
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200


def test_info_counts_what_there_is(client: TestClient) -> None:
    info = client.get("/api/info").json()
    assert info["items"] == 7
    assert info["modalities"] == {"image": 3, "document": 2, "video": 1, "text": 1}
    assert info["model"] == {"name": "colours", "dim": 8}
    assert info["code"] is True


def test_every_answer_is_protected(client: TestClient) -> None:
    for path in ("/", "/static/app.js", "/api/info", "/nowhere"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_needs_nothing_from_elsewhere(project_root: Path) -> None:
    for file in (project_root / "mmembed/server/static").glob("*.[hjc]*"):
        text = file.read_text(encoding="utf-8")
        assert "http://" not in text, file
        assert "https://" not in text, file
        assert "innerHTML" not in text, file


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "0.0.0.0"])
def test_other_host_names_are_refused(client: TestClient, host: str) -> None:
    response = client.get("/api/info", headers={"host": host})
    assert response.status_code == 421
    assert response.json()["error"]["param"] == "Host"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9000", "LOCALHOST"])
def test_local_host_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_errors_are_json_without_a_trace(app: FastAPI, client: TestClient) -> None:
    missing = client.get("/nowhere")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"].startswith("GET /nowhere")
    assert client.put("/api/search").status_code == 405
    assert client.put("/api/search").json()["error"]["code"] == "method_not_allowed"


def test_an_unexpected_failure_shows_no_detail(colour_index: Index) -> None:
    class Failing:
        def search(self, *args: Any, **options: Any) -> Any:
            raise ZeroDivisionError("/home/somebody/secret")

        similar = search
        stats = colour_index.stats

        def __len__(self) -> int:
            return 0

    app = create_app(Failing(), ColourModel())
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        response = client.get("/api/search", params={"q": "red"})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert "secret" not in response.text
        assert "nosniff" in response.headers.get("x-content-type-options", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_machines_are_kept_out_by_default(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allow-remote") as raised:
        run(tmp_path, host=host)
    assert host in str(raised.value)


def test_run_puts_the_parts_together(
    colour_index: Index, media_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[list[str]] = []

    def serve(app: FastAPI, host: str, port: int, **options: Any) -> None:
        assert (host, port) == ("127.0.0.1", 8765)
        with TestClient(app, base_url="http://127.0.0.1:8765") as client:
            results = client.get("/api/search", params={"q": "red", "modality": "image"}).json()
            served.append([each["name"] for each in results["results"]])
            folder = results["results"][0]["folder"]
            assert folder == "trip"  # the folder of the index is the root of its media
            assert client.get("/health", headers={"host": "evil.example"}).status_code == 421

    monkeypatch.setattr("uvicorn.run", serve)
    monkeypatch.setattr("mmembed.embedder.Embedder.from_pretrained", lambda name: ColourModel())
    run(media_folder, port=8765)
    assert served[0][0] == "p0.png"


def test_run_names_what_is_missing(
    tmp_path: Path, media_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmembed.embedder.Embedder.from_pretrained", lambda name: ColourModel())
    with pytest.raises(InputError, match="holds no index"):
        run(tmp_path)
    with pytest.raises(InputError, match="holds no code index"):
        run(media_folder, tmp_path)


def test_there_are_no_pages_that_load_from_elsewhere(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    assert "/api/search" in client.get("/openapi.json").json()["paths"]


@pytest.mark.anyio
async def test_the_model_works_on_one_thing_at_a_time() -> None:
    import asyncio

    worker = ModelWorker()
    running: list[int] = []
    most = 0

    def work(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        time.sleep(0.005)
        running.remove(number)
        return number

    answers = await asyncio.gather(*(worker.run(work, number) for number in range(8)))
    worker.close()
    assert answers == list(range(8))
    assert most == 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

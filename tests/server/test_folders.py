"""A result's folder in the file manager: for the server's own page, and files that were found."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from colour_model import ColourModel
from fastapi.testclient import TestClient

from mmembed.search.index import Index
from mmembed.server import folders
from mmembed.server.app import create_app
from mmembed.server.folders import file_manager


@pytest.fixture
def shown() -> list[Path]:
    return []


@pytest.fixture
def client(colour_index: Index, media_folder: Path, shown: list[Path]) -> Iterator[TestClient]:
    app = create_app(
        colour_index, ColourModel(), media_roots=[media_folder], show_folder=shown.append
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def token_of(client: TestClient, name: str) -> str:
    found = client.get("/api/search", params={"q": "red", "k": 20}).json()["results"]
    return next(each["id"] for each in found if each["name"] == name)


def test_the_file_s_folder_is_shown(
    client: TestClient, shown: list[Path], media_folder: Path
) -> None:
    assert client.get("/api/info").json()["folders"] is True
    answer = client.post(
        f"/api/media/{token_of(client, 'p0.png')}/folder", headers={"sec-fetch-site": "same-origin"}
    )
    assert answer.status_code == 204
    assert shown == [media_folder / "trip" / "p0.png"]


def test_nobody_else_opens_windows(
    client: TestClient, shown: list[Path], colour_index: Index
) -> None:
    place = f"/api/media/{token_of(client, 'p0.png')}/folder"
    for site in ("cross-site", "same-site", "x" * 100):
        answer = client.post(place, headers={"sec-fetch-site": site})
        assert answer.status_code in (403, 422)
        assert answer.json()["error"]["message"]
    assert client.get(place).status_code == 405
    assert client.post(f"/api/media/{'0' * 24}/folder").status_code == 404
    assert client.post(f"/api/media/{token_of(client, 'note.txt')}/folder").status_code == 404
    assert shown == []
    without = create_app(colour_index, ColourModel())
    with TestClient(without, base_url="http://127.0.0.1") as other:
        assert other.get("/api/info").json()["folders"] is False
        assert other.post(place).status_code == 404


@pytest.mark.parametrize(
    ("platform", "variables", "command"),
    [
        ("darwin", {}, ["open", "-R", "/a b/c.png"]),
        ("win32", {}, ["explorer", "/select,/a b/c.png"]),
        ("linux", {"DISPLAY": ":0"}, ["xdg-open", "/a b"]),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, ["xdg-open", "/a b"]),
        ("linux", {}, None),
    ],
)
def test_each_system_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variables: dict[str, str],
    command: list[str] | None,
) -> None:
    started: list[list[str]] = []

    def start(command: Any, **options: Any) -> None:
        started.append([*command])

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folders.sys, "platform", platform)
    monkeypatch.setattr(folders.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "Popen", start)
    show = file_manager()
    if show is not None:
        show(Path("/a b/c.png"))
    assert started == ([] if command is None else [command])

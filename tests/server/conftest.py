"""A real index over a small folder of real files, with a model that knows colours only."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from mmembed import Embedder, Reranker
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.search.index import Index
from mmembed.server.api.service import Service
from mmembed.server.app import create_app
from mmembed.server.indexing import Indexing

sys.path.insert(0, str(Path(__file__).parent))
from browsing import FLAGS
from colour_model import COLOURS, ColourModel, FakeCode

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# By module: while it is open, its event loop runs in this thread, where others could not.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*FLAGS], timeout=120_000)
        yield browser
        browser.close()


def write_clip(path: Path, colour: tuple[int, int, int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for step in range(16):
            pixels = np.full((64, 64, 3), colour, np.uint8)
            pixels[:, step * 4 : step * 4 + 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos, a clip, a PDF of two pages and a text, each of one colour."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "trip").mkdir()
    for number, colour in enumerate(COLOURS.values()):
        Image.new("RGB", (96, 64), colour).save(folder / "trip" / f"p{number}.png")
    write_clip(folder / "clip.mp4", COLOURS["red"])
    pages = [Image.new("RGB", (300, 400), COLOURS[name]) for name in ("blue", "red")]
    pages[0].save(folder / "paper.pdf", save_all=True, append_images=pages[1:])
    (folder / "note.txt").write_text("The green hills are far away.", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def colour_index(media_folder: Path) -> Iterator[Index]:
    with Index.open(media_folder, ColourModel()) as index:
        report = index.add(media_folder)
        assert report.skipped == []
        yield index


@pytest.fixture(scope="session")
def app(colour_index: Index, media_folder: Path) -> FastAPI:
    return create_app(
        colour_index, ColourModel(), code_index=FakeCode(), media_roots=[media_folder]
    )


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def whole(
    media_folder: Path, colour_index: Index, tmp_path_factory: pytest.TempPathFactory
) -> FastAPI:
    """Everything that is served: page, media, indexing, and the API over tiny models."""
    folder = tmp_path_factory.mktemp("models")
    model = Embedder.from_pretrained(tiny_towers("blip2", folder / "blip2"), device="cpu")
    judge = Reranker.from_pretrained(tiny_towers("blip", folder / "blip"), device="cpu")
    return create_app(
        colour_index,
        ColourModel(),
        media_roots=[media_folder],
        service=Service.of({"small": model}, {"judge": judge}),
        indexing=Indexing(colour_index, [tmp_path_factory.mktemp("empty")]),
        show_folder=lambda file: None,
    )


@pytest.fixture(scope="module")
def sender(whole: FastAPI) -> Iterator[TestClient]:
    with TestClient(whole, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client

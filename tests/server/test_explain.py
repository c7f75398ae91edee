"""Where and when a result fits, the map, ``/v1/search``, and indexing from the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from colour_model import COLOURS, ColourModel, ColourPatches
from fastapi.testclient import TestClient
from PIL import Image

from mmembed import Embedder
from mmembed.backbones.vlm.tiny import TINY
from mmembed.embedder_config import EmbedderConfig
from mmembed.search.index import Index, LateInteraction
from mmembed.server.app import create_app
from mmembed.server.explain import drawn
from mmembed.server.indexing import Indexing
from mmembed.server.overview import plane
from mmembed.server.search import Steps


def turning_clip(path: Path) -> None:
    """Blue, then red, then green, two seconds each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for name in ("blue", "red", "green"):
            pixels = np.full((64, 64, 3), COLOURS[name], np.uint8)
            for _ in range(8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def coloured_library(folder: Path) -> Path:
    """Fill a folder: a red corner on blue, a green picture, and a clip that turns."""
    (folder / "trip").mkdir()
    corner = Image.new("RGB", (240, 160), COLOURS["blue"])
    corner.paste(COLOURS["red"], (160, 90, 240, 160))
    corner.save(folder / "trip" / "corner.png")
    Image.new("RGB", (60, 60), COLOURS["green"]).save(folder / "green.png")
    turning_clip(folder / "turning.mp4")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = coloured_library(tmp_path_factory.mktemp("library"))
    Image.new("RGB", (60, 60), COLOURS["green"]).save(folder / "page.pdf")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with Index.open(folder, ColourModel()) as index:
        index.add(folder)
        app = create_app(index, ColourModel(), media_roots=[folder])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            yield client


def tokens(client: TestClient) -> dict[str, str]:
    found = client.get("/api/search", params={"q": "red", "k": 20}).json()["results"]
    return {each["name"]: each["id"] for each in found}


def test_the_heat_lies_where_the_colour_is(client: TestClient) -> None:
    token = tokens(client)["corner.png"]
    for colour, place in (("red", (3, 5)), ("blue", (0, 0))):
        heat = client.get(f"/api/media/{token}/heat", params={"q": colour}).json()
        values = np.array(heat["values"])
        assert values.shape == (heat["rows"], heat["columns"]) == (4, 6)
        assert values[place] == values.max()
        assert values[3, 5] - values[0, 0] > 0.5 if colour == "red" else True
    page = tokens(client)["page.pdf, page 1"]
    assert client.get(f"/api/media/{page}/heat", params={"q": "red"}).status_code == 200


def test_the_heat_is_of_the_model_s_own_patches_where_it_tells_them(tmp_path: Path) -> None:
    corner = Image.new("RGB", (240, 320), COLOURS["blue"])
    corner.paste(COLOURS["red"], (160, 120, 200, 160))  # one patch of 40 by 40
    corner.save(tmp_path / "photo.png")
    corner.save(tmp_path / "page.pdf")
    with Index.open(tmp_path, ColourPatches()) as index:
        index.add(tmp_path)
        app = create_app(index, ColourPatches(), media_roots=[tmp_path])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            for token in tokens(client).values():
                heat = client.get(f"/api/media/{token}/heat", params={"q": "red"}).json()
                values = np.array(heat["values"])
                assert values.shape == (heat["rows"], heat["columns"]) == (8, 6)
                assert np.unravel_index(values.argmax(), values.shape) == (3, 4)
                assert values[3, 4] > 0.9
                assert np.delete(values.ravel(), 3 * 6 + 4).max() < 0.5


def test_the_heat_of_a_vision_language_model_is_by_its_own_patches(tmp_path: Path) -> None:
    folder = TINY["qwen2_vl"](tmp_path / "model")
    model = Embedder.from_pretrained(folder, device="cpu").configured(EmbedderConfig(multi_dim=16))
    (tmp_path / "media").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (140, 84, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "media" / "photo.png")
    with Index.open(tmp_path / "media", model, late=LateInteraction()) as index:
        index.add(tmp_path / "media")
        app = create_app(index, model, media_roots=[tmp_path / "media"])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            token = tokens(client)["photo.png"]
            heat = client.get(f"/api/media/{token}/heat", params={"q": "two dogs"}).json()
    assert (heat["rows"], heat["columns"]) == (5, 3)  # 28 pixels each
    page = model.encode_document(tmp_path / "media" / "photo.png", output="multi")
    query = model.encode_query("two dogs", output="multi")
    means = (page @ query.T).mean(axis=1)
    found = np.ravel(heat["values"])
    assert found.std() > 0
    # The patches lie in one run among the tokens of the prompt, row by row.
    starts = range(len(means) - len(found) + 1)
    assert any(np.allclose(means[i : i + len(found)], found, atol=1e-3) for i in starts)


def test_coarse_and_fine_patches_are_drawn_on_one_grid() -> None:
    boxes = [[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    values = np.array([1.0, 0, 2, 4, 6])
    np.testing.assert_allclose(drawn(values, np.array(boxes)), [[0.5, 1.5], [2.5, 3.5]])


def test_the_moment_is_when_the_colour_is(client: TestClient) -> None:
    token = tokens(client)["turning.mp4"]
    for colour, (low, high) in {"blue": (0, 2), "red": (2, 4), "green": (4, 6)}.items():
        found = client.get(f"/api/media/{token}/moments", params={"q": colour}).json()
        assert low <= found["best"] < high
        assert len(found["seconds"]) == len(found["values"]) > 5
        assert found["seconds"] == sorted(found["seconds"])
    again = client.get(f"/api/media/{token}/moments", params={"q": "green"}).json()
    assert again == found


@pytest.mark.parametrize(
    ("name", "what", "query", "status"),
    [
        ("turning.mp4", "heat", "red", 422),
        ("green.png", "moments", "red", 422),
        ("green.png", "heat", "", 422),
        (None, "heat", "red", 404),
    ],
)
def test_what_cannot_be_explained(
    client: TestClient, name: str | None, what: str, query: str, status: int
) -> None:
    token = "0" * 24 if name is None else tokens(client)[name]
    answer = client.get(f"/api/media/{token}/{what}", params={"q": query})
    assert answer.status_code == status
    assert "error" in answer.json()


def test_a_file_that_broke_since_is_named_without_its_path(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 50), COLOURS["red"]).save(photo)
    with Index.open(tmp_path, ColourModel()) as index:
        index.add(tmp_path)
        app = create_app(index, ColourModel(), media_roots=[tmp_path])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            token = tokens(client)["photo.png"]
            photo.write_bytes(b"no picture")
            answer = client.get(f"/api/media/{token}/heat", params={"q": "red"})
            assert answer.status_code == 422
            assert answer.json()["error"]["message"].startswith("photo.png: ")
            assert str(tmp_path) not in answer.text


def test_the_map_puts_like_beside_like(client: TestClient) -> None:
    answer = client.get("/api/map").json()
    places = {each["name"]: (each["x"], each["y"]) for each in answer["points"]}
    assert answer["items"] == len(places) == 4
    assert all(0 <= value <= 1 for place in places.values() for value in place)
    far = np.hypot(*np.subtract(places["green.png"], places["corner.png"]))
    near = np.hypot(*np.subtract(places["green.png"], places["page.pdf, page 1"]))
    assert near < far
    assert len(client.get("/api/map", params={"limit": 2}).json()["points"]) == 2
    token = answer["points"][0]["id"]
    assert client.get("/api/search", params={"like": token}).status_code == 200


def test_a_plane_is_the_same_whatever_the_sign_and_survives_equals() -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 8))
    places = plane(vectors)
    assert places.shape == (30, 2)
    np.testing.assert_allclose(plane(vectors), places)
    np.testing.assert_allclose(plane(np.ones((3, 8)))[:, 0].min(), 0)
    assert plane(np.ones((1, 8))).shape == (1, 2)


def test_filters_of_the_page(client: TestClient) -> None:
    def names(**query: Any) -> set[str]:
        answer = client.get("/api/search", params={"q": "red", "k": 20, **query})
        assert answer.status_code == 200, answer.text
        return {each["name"] for each in answer.json()["results"]}

    assert names(filter='path like "trip/*"') == {"corner.png"}
    assert names(filter='path like "*.png"', modality="image") == {"corner.png", "green.png"}
    assert names(filter='path like "*.png"', modality="video") == set()
    refused = client.get("/api/search", params={"q": "red", "filter": "colour = 3"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]


def test_search_for_programs(client: TestClient) -> None:
    asked = {"query": "red", "k": 2, "mode": "dense", "filter": {"modality": "image"}}
    answer = client.post("/v1/search", json=asked).json()
    assert [each["kind"] for each in answer["results"]] == ["image", "image"]
    assert answer["results"][0]["scores"].keys() == {"dense"}
    assert client.get("/v1/search", params={"q": "red", "k": 1}).json()["results"]
    for wrong in (
        {"query": "red", "k": 0},
        {"query": "red", "more": 1},
        {"query": {"image": "/etc/passwd"}},
        {"query": "red", "maxsim": 5},
        {"query": "red", "rerank": 5},
        {"query": "red", "filter": "nothing like 3"},
    ):
        refused = client.post("/v1/search", json=wrong)
        assert refused.status_code in (400, 422), wrong
        assert refused.json()["error"]["message"]


def test_a_reranker_has_the_last_word_where_it_is_asked_for(folder: Path) -> None:
    class Greens:
        def score(self, query: object, documents: Any, **how: Any) -> np.ndarray:
            return np.array([float("green" in each.name) for each in documents], np.float32)

    with Index.open(folder, ColourModel()) as index:
        steps = Steps(reranker=Greens(), rerank=10)
        app = create_app(index, ColourModel(), media_roots=[folder], steps=steps)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get("/api/info").json()["steps"] == {"maxsim": False, "reranker": True}
            plain = client.get("/api/search", params={"q": "blue", "rerank": False}).json()
            assert plain["results"][0]["name"] == "corner.png"
            judged = client.get("/api/search", params={"q": "blue", "rerank": True}).json()
            assert judged["results"][0]["name"] == "green.png"
            assert judged["results"][0]["scores"]["rerank"] == 1.0
            asked = {"query": "blue", "rerank": 4}
            assert client.post("/v1/search", json=asked).json()["results"][0]["name"] == "green.png"


# --- indexing ------------------------------------------------------------------------------------


class Held(ColourModel):
    """Waits before each item until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen = threading.Event()

    def encode_stream(self, items: Any, /, *, role: Any) -> Any:
        for encoded in super().encode_stream(items, role=role):
            if role == "document":
                self.seen.set()
                assert self.go.wait(60)
            yield encoded


def wait_for(client: TestClient, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        state: dict[str, Any] = client.get("/api/index").json()
        if state["state"] in states:
            return state
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[TestClient, Held, Path]]:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (20, 20), (200, number, number)).save(root / "sub" / f"{number}.png")
    (root / "bad.png").write_bytes(b"none")
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    model = Held()
    with Index.open(root, model) as index:
        indexing = Indexing(index, [root])
        app = create_app(index, ColourModel(), media_roots=[root], indexing=indexing)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            yield client, model, root
            model.go.set()


def test_a_folder_is_indexed_with_progress(held: tuple[TestClient, Held, Path]) -> None:
    client, model, root = held
    assert client.get("/api/index").json()["roots"] == ["photos"]
    started = client.post("/api/index", json={"root": "photos"})
    assert (started.status_code, started.json()["state"]) == (202, "running")
    assert model.seen.wait(60)
    assert client.post("/api/index", json={"root": "photos"}).status_code == 409
    model.go.set()
    state = wait_for(client, "done")
    assert (state["added"], state["skipped_count"]) == (4, 1)
    assert state["skipped"][0]["name"] == "bad.png"
    assert str(root) not in str(state)
    assert client.get("/api/info").json()["items"] == 4
    client.post("/api/index", json={"root": "photos", "folder": "sub"})
    assert wait_for(client, "done")["unchanged"] == 4


def test_a_run_can_be_cancelled_and_goes_on_later(held: tuple[TestClient, Held, Path]) -> None:
    client, model, _ = held
    client.post("/api/index", json={"root": "photos", "folder": "sub"})
    assert model.seen.wait(60)
    assert client.delete("/api/index").status_code == 200
    model.go.set()
    state = wait_for(client, "cancelled")
    assert state["added"] < 4
    assert client.get("/api/info").json()["items"] == state["added"]
    client.post("/api/index", json={"root": "photos", "folder": "sub"})
    wait_for(client, "done")
    assert client.get("/api/info").json()["items"] == 4


@pytest.mark.parametrize(
    ("root", "folder"),
    [
        ("photos", ".."), ("photos", "../secret"), ("photos", "/etc"), ("photos", "link"),
        ("photos", "nothing"), ("photos", "bad.png"), ("secret", ""), ("", ""), ("photos", "a\0b"),
        ("photos", "x" * 4000),
    ],
)  # fmt: skip
def test_nothing_outside_is_indexed(
    held: tuple[TestClient, Held, Path], root: str, folder: str
) -> None:
    client, _, _ = held
    answer = client.post("/api/index", json={"root": root, "folder": folder})
    assert answer.status_code == 404
    assert client.get("/api/index").json()["state"] == "idle"


def test_a_server_without_it_has_no_such_route(client: TestClient) -> None:
    assert client.get("/api/index").status_code == 404
    assert client.get("/api/info").json()["indexing"] is False

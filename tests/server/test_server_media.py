"""``/api/media``: previews of every kind, and no file but those that were found."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from colour_model import ColourModel
from fastapi.testclient import TestClient
from PIL import Image

from mmembed.search.index import Index
from mmembed.search.results import Hit
from mmembed.server.app import create_app
from mmembed.server.errors import RequestError
from mmembed.server.library import Library, MediaFile
from mmembed.server.thumbnails import Thumbnails


def found(client: TestClient, name: str) -> dict[str, Any]:
    results = client.get("/api/search", params={"q": "red", "k": 20}).json()["results"]
    return next(each for each in results if each["name"] == name)


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("p0.png", (220, 30, 30)),
        ("clip.mp4", (220, 30, 30)),
        ("paper.pdf, page 1", (40, 60, 220)),
        ("paper.pdf, page 2", (220, 30, 30)),
    ],
)
def test_previews_show_the_item(
    client: TestClient, name: str, colour: tuple[int, int, int]
) -> None:
    response = client.get(f"/api/media/{found(client, name)['id']}/thumb")
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/webp"
    image = Image.open(BytesIO(response.content)).convert("RGB")
    assert max(image.size) <= 480
    corner = image.getpixel((image.width - 3, image.height - 3))
    assert isinstance(corner, tuple)
    assert max(abs(a - b) for a, b in zip(corner, colour, strict=True)) < 25


def test_a_preview_is_made_once(client: TestClient) -> None:
    url = f"/api/media/{found(client, 'p0.png')['id']}/thumb"
    first = client.get(url)
    again = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_large_previews_are_larger(client: TestClient) -> None:
    url = f"/api/media/{found(client, 'paper.pdf, page 1')['id']}/thumb"
    sizes = [
        max(Image.open(BytesIO(client.get(url, params={"size": size}).content)).size)
        for size in ("small", "large")
    ]
    assert sizes[0] <= 480 < sizes[1] <= 1600
    assert client.get(url, params={"size": "9999"}).status_code == 422


def test_originals_are_served_as_they_are(client: TestClient, media_folder: Path) -> None:
    response = client.get(f"/api/media/{found(client, 'p0.png')['id']}")
    assert response.content == (media_folder / "trip/p0.png").read_bytes()
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


def test_clips_are_served_by_ranges(client: TestClient, media_folder: Path) -> None:
    url = f"/api/media/{found(client, 'clip.mp4')['id']}"
    response = client.get(url, headers={"range": "bytes=4-7"})
    assert response.status_code == 206
    assert response.content == (media_folder / "clip.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    "path", ["/api/media/nothing", "/api/media/..%2f..%2fetc%2fpasswd", "/api/media/nothing/thumb"]
)
def test_unknown_ids_are_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_an_id_is_unknown_until_a_search_finds_it(colour_index: Index, client: TestClient) -> None:
    token = found(client, "p0.png")["id"]
    with TestClient(create_app(colour_index, ColourModel()), base_url="http://127.0.0.1") as fresh:
        assert fresh.get(f"/api/media/{token}").status_code == 404
        assert found(fresh, "p0.png")["id"] == token
        assert fresh.get(f"/api/media/{token}").status_code == 200


def test_texts_have_no_file(client: TestClient) -> None:
    results = client.get("/api/search", params={"q": "green", "modality": "text"}).json()["results"]
    assert results[0]["preview"] is False
    assert results[0]["text"] == "The green hills are far away."
    assert client.get(f"/api/media/{results[0]['id']}").status_code == 404


def hit(path: Path | str, modality: str = "image") -> Hit:
    return Hit(str(path), 1.0, {}, str(path), modality, None)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A photo outside of the root, and a link to it inside."""
    secret = tmp_path / "outside" / "secret.png"
    secret.parent.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(secret)
    return root, secret


@pytest.mark.parametrize("roots_given", [True, False])
def test_links_do_not_lead_out(outside: tuple[Path, Path], roots_given: bool) -> None:
    root, secret = outside
    library = Library([root] if roots_given else None)
    token, file = library.register(hit(root / "link.png"))
    assert file is None
    with pytest.raises(RequestError):
        library.file(token)
    assert (library.register(hit(secret))[1] is None) is roots_given


def test_a_file_that_becomes_a_link_is_no_longer_given_out(outside: tuple[Path, Path]) -> None:
    root, secret = outside
    photo = root / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    library = Library([root])
    token, file = library.register(hit(photo))
    assert file is not None
    assert library.file(token).path == photo
    photo.unlink()
    photo.symlink_to(secret)
    with pytest.raises(RequestError) as raised:
        library.file(token)
    assert str(secret) not in raised.value.reason


def test_urls_and_texts_are_no_files(tmp_path: Path) -> None:
    library = Library([tmp_path])
    assert library.register(hit("https://example.org/a.png"))[1] is None
    assert library.register(hit(tmp_path / "a.txt", "text"))[1] is None


def test_svg_is_not_served(tmp_path: Path) -> None:
    assert MediaFile("a", tmp_path / "a.svg", "image", None).media_type is None
    assert MediaFile("a", tmp_path / "a.HTML", "image", None).media_type is None


def test_a_broken_file_is_named_without_its_folder(tmp_path: Path, colour_index: Index) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")

    class OneHit:
        def search(self, *args: Any, **options: Any) -> list[Hit]:
            return [hit(broken)]

        similar = search
        stats = colour_index.stats

        def __len__(self) -> int:
            return 1

    app = create_app(OneHit(), ColourModel(), media_roots=[tmp_path])
    with TestClient(app, base_url="http://127.0.0.1") as client:
        token = client.get("/api/search", params={"q": "x"}).json()["results"][0]["id"]
        response = client.get(f"/api/media/{token}/thumb")
        assert response.status_code == 422
        message = response.json()["error"]["message"]
        assert message.startswith("broken.png: ")
        assert str(tmp_path) not in message
        broken.unlink()
        assert client.get(f"/api/media/{token}/thumb").status_code == 404


def test_kept_previews_stay_within_their_size(media_folder: Path) -> None:
    thumbnails = Thumbnails(max_bytes=1)
    files = [
        MediaFile(name, media_folder / "trip" / name, "image", None)
        for name in ("p0.png", "p1.png")
    ]
    first = thumbnails.get(files[0], 64)
    assert thumbnails.get(files[0], 64) is first
    thumbnails.get(files[1], 64)
    assert thumbnails.get(files[0], 64) is not first

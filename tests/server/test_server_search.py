"""``/api/search`` over a real index: what is found, and what is refused."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image


def search(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    response = client.get("/api/search", params=query)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def png(colour: str, size: tuple[int, int] = (32, 32)) -> bytes:
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def post(client: TestClient, data: bytes, name: str = "shot.png", **form: Any) -> Any:
    return client.post("/api/search", files={"image": (name, data)}, data=form)


def test_text_finds_media_of_every_kind(client: TestClient) -> None:
    results = search(client, q="red", k=20)
    by_name = {each["name"]: each for each in results}
    red = [by_name[name]["similarity"] for name in ("p0.png", "clip.mp4", "paper.pdf, page 2")]
    other = [by_name[name]["similarity"] for name in ("p1.png", "p2.png", "paper.pdf, page 1")]
    assert min(red) > 0.9
    assert max(other) < 0.5
    assert by_name["p0.png"]["folder"] == "trip"
    assert by_name["paper.pdf, page 2"]["page"] == 2
    assert {"dense", "rrf"} <= by_name["p0.png"]["scores"].keys()


def test_code_comes_with_its_lines(client: TestClient) -> None:
    (code,) = search(client, q="red", modality="code")
    assert code["name"] == "colour/mix.py:12-14"
    assert (code["start_line"], code["end_line"], code["symbol"]) == (12, 14, "mix")
    assert code["breadcrumb"] == "colour/mix.py > class Palette > def mix"
    assert code["id"] is None
    assert [each["kind"] for each in search(client, q="red", k=20)][-1] == "code"


@pytest.mark.parametrize(
    ("modality", "kinds"),
    [("image", {"image"}), ("document", {"document"}), ("video", {"video"}), ("text", {"text"})],
)
def test_modality_filters_before_the_best_are_taken(
    client: TestClient, modality: str, kinds: set[str]
) -> None:
    results = search(client, q="red", modality=modality, k=20)
    assert {each["kind"] for each in results} == kinds
    assert len(results) == {"image": 3, "document": 2, "video": 1, "text": 1}[modality]


def test_min_score_drops_what_is_less_similar(client: TestClient) -> None:
    names = {each["name"] for each in search(client, q="red", k=20, min_score=0.9)}
    assert names == {"p0.png", "clip.mp4", "paper.pdf, page 2"}


def test_image_finds_its_like(client: TestClient) -> None:
    results = post(client, png("blue"), k="3").json()["results"]
    assert {each["name"] for each in results[:2]} == {"p2.png", "paper.pdf, page 1"}


def test_image_and_text_are_one_query(client: TestClient) -> None:
    # Blue and twice red lie nearest to red.
    results = post(client, png("blue"), q="red red red", modality="image", k="1").json()["results"]
    assert results[0]["name"] == "p0.png"


def test_similar_leaves_the_item_itself_out(client: TestClient) -> None:
    photo = next(each for each in search(client, q="red") if each["name"] == "p0.png")
    names = [each["name"] for each in search(client, like=photo["id"], k=2)]
    assert set(names) == {"clip.mp4", "paper.pdf, page 2"}


def test_ids_say_nothing_about_paths(client: TestClient) -> None:
    for each in search(client, q="red"):
        assert each["id"] is None or (len(each["id"]) == 24 and int(each["id"], 16) >= 0)


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({}, 400, "q"),
        ({"q": "  "}, 400, "q"),
        ({"q": "red", "k": 0}, 422, "k"),
        ({"q": "red", "k": "many"}, 422, "k"),
        ({"q": "red", "modality": "smell"}, 422, "modality"),
        ({"q": "x" * 5000}, 422, "q"),
        ({"like": "unknown"}, 404, "id"),
    ],
)
def test_bad_queries_name_the_field(
    client: TestClient, query: dict[str, Any], status: int, param: str
) -> None:
    response = client.get("/api/search", params=query)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_broken_image_is_named_with_the_reason(client: TestClient) -> None:
    response = post(client, png("red")[:60], "holiday.png")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "image"
    assert error["message"].startswith("holiday.png: ")
    assert "damaged" in error["message"]


def test_what_is_no_image_is_refused(client: TestClient) -> None:
    response = post(client, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "logo.svg")
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("logo.svg: ")
    assert post(client, b"", "empty.png").status_code == 400


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client: TestClient) -> None:
    bomb = BytesIO()
    Image.new("1", (8000, 6000)).save(bomb, "PNG")  # 48 million pixels in some kilobytes
    response = post(client, bomb.getvalue(), "bomb.png")
    assert response.status_code == 400
    assert "million" in response.json()["error"]["message"]


def test_a_large_upload_is_refused(client: TestClient) -> None:
    response = post(client, bytes(20_000_001), "large.png")
    assert response.status_code == 413
    assert response.json()["error"]["message"].startswith("large.png: is larger than 20 MB")


def test_a_larger_body_is_refused_by_its_declared_size(client: TestClient) -> None:
    response = post(client, bytes(21_000_000), "huge.png")
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "body"


def test_a_larger_body_without_a_declared_size_is_refused_while_it_comes(
    client: TestClient,
) -> None:
    boundary = "b"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    def chunks() -> Any:
        yield head.encode()
        for _ in range(25):
            yield bytes(1_000_000)

    response = client.post(
        "/api/search",
        content=chunks(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "body"

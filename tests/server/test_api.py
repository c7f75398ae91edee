"""The embedding API: what clients send and get, refusals, keys, and real clients."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import serving
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmembed import Embedder, Reranker
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.errors import ConfigError
from mmembed.server.api.service import Service, api_app
from mmembed.server.security import check_bind_address, read_keys

KEY = "a-key-of-some-length"


def picture(seed: int = 0, side: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, 60, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tiny_towers("blip2", tmp_path_factory.mktemp("api") / "blip2")
    return Embedder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    folder = tiny_towers("blip", tmp_path_factory.mktemp("api") / "blip")
    return Reranker.from_pretrained(folder, device="cpu")


@pytest.fixture
def client(model: Embedder, reranker: Reranker) -> Iterator[TestClient]:
    service = Service.of({"small": model}, {"judge": reranker})
    with TestClient(api_app(service, hosts=None), raise_server_exceptions=False) as found:
        yield found


def vectors(client: TestClient, **body: Any) -> np.ndarray[Any, Any]:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert [one["index"] for one in answer.json()["data"]] == list(
        range(len(answer.json()["data"]))
    )
    return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def refused(client: TestClient, path: str = "/v1/embeddings", **body: Any) -> tuple[int, str]:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["message"]


def test_texts_and_media_give_the_model_s_vectors(client: TestClient, model: Embedder) -> None:
    image = picture()
    uri = f"data:image/png;base64,{encoded(image)}"
    expected = model.encode(["two dogs", image, {"text": "two dogs", "image": image}])
    found = vectors(
        client,
        input=["two dogs", {"image": encoded(image)}, {"text": "two dogs", "image": uri}],
        model="small",
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    parts = [
        {"type": "text", "text": "two dogs"},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    np.testing.assert_allclose(
        vectors(client, input=[{"content": parts}])[0], expected[2], atol=1e-6
    )
    messages = [{"role": "user", "content": parts}]
    np.testing.assert_allclose(vectors(client, messages=messages)[0], expected[2], atol=1e-6)
    np.testing.assert_allclose(vectors(client, input="two dogs")[0], expected[0], atol=1e-6)


def test_forms_of_a_vector(client: TestClient, model: Embedder) -> None:
    full = model.encode("a cat")
    short = vectors(client, input="a cat", dimensions=8)[0]
    np.testing.assert_allclose(short, model.encode("a cat", dim=8), atol=1e-6)
    body = {"input": "a cat", "encoding_format": "base64"}
    packed = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), full, atol=1e-6)
    bits = vectors(client, input="a cat", embedding_type="ubinary")[0].astype(np.uint8)
    np.testing.assert_array_equal(np.unpackbits(bits), full > 0)
    signed = vectors(client, input="a cat", embedding_type="binary")[0]
    np.testing.assert_array_equal(signed + 128, bits)


def test_vectors_of_tokens_and_of_documents(client: TestClient, model: Embedder) -> None:
    image = picture()
    answer = client.post("/v1/multi_embeddings", json={"input": [{"image": encoded(image)}, "x"]})
    found = [np.array(one["embeddings"]) for one in answer.json()["data"]]
    for got, wanted in zip(found, model.encode([image, "x"], output="multi"), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_usage_counts_words(client: TestClient, model: Embedder) -> None:
    usage = client.post("/v1/embeddings", json={"input": ["one", "three"]}).json()["usage"]
    assert usage["prompt_tokens"] == sum(model.count_tokens(["one", "three"]))


def test_rerank(client: TestClient, reranker: Reranker) -> None:
    images = [picture(seed) for seed in range(3)]
    documents = [{"image": encoded(image)} for image in images]
    body = {"query": "two dogs", "documents": documents, "top_n": 2, "return_documents": True}
    answer = client.post("/v1/rerank", json=body).json()
    scores = reranker.score("two dogs", images)
    order = np.argsort(-scores)[:2].tolist()
    assert [one["index"] for one in answer["results"]] == order
    assert answer["results"][0]["document"] == documents[order[0]]
    assert answer["results"][0]["relevance_score"] == pytest.approx(float(scores[order[0]]))
    status, message = refused(client, "/v1/rerank", query="a", documents=["words"])
    assert status == 400
    assert message.startswith("documents[0]: ")


def test_models_health_metrics_and_routes_without_a_prefix(client: TestClient) -> None:
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["small", "judge"]
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 200
    assert client.post("/embeddings", json={"input": "x"}).status_code == 200
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'mmembed_requests_total{route="/embeddings",status="200"} 1.0' in text
    assert "/no/such" not in text
    assert 'mmembed_waiting_tokens{model="small"} 0.0' in text
    assert "/v1/embeddings" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"input": "x", "model": "other"}, 404, "there is no embedder 'other'"),
        ({}, 400, "either input or messages"),
        ({"input": []}, 400, "give 1 to 2048 inputs"),
        ({"input": ["x"] * 2049}, 400, "not 2049"),
        ({"input": [[1, 2]]}, 400, "send text"),
        ({"input": "x", "dimensions": 999}, 400, "this model's vectors have 16"),
        ({"input": "x", "dimensions": 0}, 422, "dimensions"),
        ({"input": "x", "task": "no-such"}, 400, "no-such"),
        ({"input": "x", "dimension": 8}, 422, "dimension"),
        ({"input": "x", "normalized": False}, 422, "normalized"),
        ({"input": {"image": "/etc/passwd"}}, 400, "input[0].image: is no base64"),
        ({"input": {"image": "file:///etc/passwd"}}, 400, "paths are never opened"),
        ({"input": {"image": "http://127.0.0.1/x.png"}}, 400, "fetches no URLs"),
        ({"input": {"image": "data:image/png,zzz"}}, 400, "must be base64"),
        ({"input": ["ok", {"image": "AAAA"}]}, 400, "input[1]"),
        ({"input": {"text": None}}, 400, "input[0]"),
        ({"input": {"text": "a", "content": "b"}}, 400, "stands in place of"),
    ],
)
def test_what_cannot_be_answered_is_said(
    client: TestClient, body: dict[str, Any], status: int, words: str
) -> None:
    found, message = refused(client, **body)
    assert found == status, message
    assert words in message


def test_a_text_is_a_text_even_where_it_names_a_file(client: TestClient, model: Embedder) -> None:
    for text in ("/etc/passwd", "http://127.0.0.1/a.png", "data:image/png;base64,AAAA"):
        np.testing.assert_allclose(vectors(client, input=text)[0], model.encode(text), atol=1e-6)


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "png")
    status, message = refused(client, input={"image": encoded(stream.getvalue())})
    assert status == 400
    assert "pixels" in message


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "image", "content", "type", "image_url", "url", "video", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=st.dictionaries(st.sampled_from(["input", "messages", "task", "model"]), JSON) | JSON)
def test_no_body_breaks_the_server(client: TestClient, body: Any) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or set(answer.json()) == {"error"}


def test_batched_answers_are_the_serial_ones(client: TestClient, model: Embedder) -> None:
    images = [picture(seed) for seed in range(8)]
    inputs = [f"text number {i}" for i in range(24)]
    expected = model.encode([*inputs, *images])
    bodies = [{"input": text} for text in inputs]
    bodies += [{"input": {"image": encoded(image)}} for image in images]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda body: vectors(client, **body)[0], bodies))
    np.testing.assert_allclose(np.stack(found), expected, atol=2e-6)


def test_keys_are_asked_for(model: Embedder) -> None:
    service = Service.of({"small": model})
    with TestClient(api_app(service, hosts=None, keys=[KEY, "another-key-of-length"])) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic !"}):
            answer = client.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"
        for credentials in (f"Bearer {KEY}", "Basic " + encoded(f"me:{KEY}".encode())):
            answer = client.get("/v1/models", headers={"authorization": credentials})
            assert answer.status_code == 200


def test_keys_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\n", encoding="utf-8")
    assert read_keys(file) == (KEY,)
    monkeypatch.setenv("MMEMBED_API_KEY", "another-key-of-length")
    assert read_keys(None) == ("another-key-of-length",)
    file.write_text("short\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="16 characters"):
        read_keys(file)
    with pytest.raises(ConfigError, match="nowhere"):
        read_keys(tmp_path / "nowhere")
    check_bind_address("0.0.0.0", False, [KEY])
    with pytest.raises(ConfigError, match="--api-key-file"):
        check_bind_address("0.0.0.0", False)


def test_the_official_client(model: Embedder) -> None:
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    app = api_app(Service.of({"small": model}), hosts=None, keys=[KEY])
    with TestClient(app) as http:
        client = openai.OpenAI(api_key=KEY, base_url="http://testserver/v1", http_client=http)
        answer = client.embeddings.create(model="small", input=["two dogs", "a cat"])
        expected = model.encode(["two dogs", "a cat"])
        found = np.array([one.embedding for one in answer.data])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        short = client.embeddings.create(model="small", input="a cat", dimensions=4)
        assert len(short.data[0].embedding) == 4
        assert [one.id for one in client.models.list().data] == ["small"]
        with pytest.raises(openai.NotFoundError, match="no embedder 'gpt'"):
            client.embeddings.create(model="gpt", input="x")
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_curl_as_the_documentation_writes_it(
    model: Embedder, page: str, project_root: Path, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    text = (project_root / page).read_text(encoding="utf-8")
    command = re.search(r"^ {4}(curl \S+/v1/embeddings(?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE)
    assert command is not None
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    with serving(api_app(Service.of({"mini": model}))) as address:
        line = command[1].replace("http://127.0.0.1:8000", address)
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, timeout=200
        )
    answer = json.loads(done.stdout)
    assert answer["model"] == "mini"
    assert {len(one["embedding"]) for one in answer["data"]} == {model.dim}

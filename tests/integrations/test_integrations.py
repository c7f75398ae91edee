"""The models in other libraries: the same vectors."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from some_texts import TEXTS

from mmembed import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.integrations.hub import model_card, push_to_hub
from mmembed.mcp_server import SearchTools, mcp_server
from mmembed.search.index import Index


def test_sentence_transformers(mini: Embedder, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import SentenceTransformer

    from mmembed.integrations.sentence_transformers import as_sentence_transformer

    model = as_sentence_transformer(mini)
    assert model.get_embedding_dimension() == mini.dim
    texts = TEXTS * 3
    wanted = mini.encode_document(texts)
    found = model.encode_document(texts, batch_size=4)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(model.encode_query(TEXTS[0]), mini.encode_query(TEXTS[0]), atol=1e-5)
    image = Image.open(photo)
    np.testing.assert_allclose(model.encode([image])[0], mini.encode(photo), atol=1e-5)
    np.testing.assert_allclose(
        model.similarity(found, found), mini.similarity(wanted, wanted), atol=1e-5
    )
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode_document(TEXTS), wanted[:3], atol=1e-5)


def test_a_card_says_what_the_model_is(mini: Embedder) -> None:
    card = model_card(mini, "me/birds", license="apache-2.0", languages=["en", "de"])
    hub = pytest.importorskip("huggingface_hub")
    parsed = hub.ModelCard(card)
    assert parsed.data.license == "apache-2.0"
    assert parsed.data.language == ["en", "de"]
    assert parsed.data.library_name == "mmembed"
    assert 'Embedder.from_pretrained("me/birds")' in parsed.text
    assert f"| dimensions | {mini.dim} |" in parsed.text
    with pytest.raises(ConfigError, match="license"):
        model_card(mini, "me/birds", license=" ")


def test_pushing_uploads_what_can_be_loaded(
    mini: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    calls: list[tuple[str, Any]] = []

    class Api:
        def __init__(self, token: str | None = None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append(("create", (repo, options)))

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
            import shutil

            shutil.copytree(folder_path, tmp_path / "uploaded")
            return f"https://hub.example/{repo_id}/commit/1"

    def download(repo: str, **options: Any) -> str:
        assert repo == "me/birds"
        return str(tmp_path / "uploaded")

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    model = mini.configured(replace(mini.config, prompts={"query": "find: "}, multi_dim=8))
    url = push_to_hub(model, "me/birds", license="mit", token="secret")
    assert url == "https://hub.example/me/birds/commit/1"
    assert calls == [
        ("token", "secret"),
        ("create", ("me/birds", {"private": True, "exist_ok": True})),
    ]
    pulled = Embedder.from_pretrained("me/birds", device="cpu")
    assert pulled.config == model.config
    for output in ("dense", "multi"):
        wanted, found = (one.encode_query(TEXTS[0], output=output) for one in (model, pulled))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert "license: mit" in (tmp_path / "uploaded" / "README.md").read_text()
    with pytest.raises(ConfigError, match="owner/name"):
        push_to_hub(mini, "../x", license="mit")


@pytest.fixture(scope="module")
def tools(mini: Embedder, photo: Path) -> SearchTools:
    (photo.parent / "note.txt").write_text("two dogs play in the snow")
    index = Index.open(photo.parent, mini)
    index.add(photo.parent)
    return SearchTools(index, [photo.parent])


def test_agents_search_by_words_and_images(tools: SearchTools, photo: Path) -> None:
    words = tools.search("dogs in the snow")
    assert words[0]["name"] == "note.txt"
    assert words[0]["scores"].keys() >= {"dense", "rrf"}
    image = tools.search(image_base64=base64.b64encode(photo.read_bytes()).decode(), k=1)
    assert (image[0]["name"], image[0]["has_picture"]) == ("photo.png", True)
    assert tools.search("dogs", modality="image")[0]["kind"] == "image"
    assert tools.search("dogs", filter='path like "*.txt"', modality="image") == []
    assert [each["name"] for each in tools.similar(image[0]["id"])] == ["note.txt"]
    assert Image.open(BytesIO(tools.picture(image[0]["id"]))).format == "WEBP"
    assert tools.status()["items"] == 2
    assert str(photo.parent) not in json.dumps([words, image])


def test_agents_cannot_name_files(tools: SearchTools) -> None:
    for wrong in ({"query": ""}, {"image_base64": "/etc/passwd!"}, {"query": "x", "filter": "1 ="}):
        with pytest.raises(InputError):
            tools.search(**wrong)
    for odd in ("/etc/passwd", "../note.txt", "0" * 24):
        with pytest.raises(Exception, match="is not the id of an item"):
            tools.picture(odd)


def test_the_mcp_server_answers_a_client(tools: SearchTools) -> None:
    pytest.importorskip("mcp", reason="mcp is not installed")
    from mcp import Client

    async def ask() -> tuple[list[str], Any, Any]:
        async with Client(mcp_server(tools)) as client:
            listed = await client.list_tools()
            found = await client.call_tool("search", {"query": "dogs", "k": 2})
            hits = found.structured_content["result"]
            with_picture = next(hit for hit in hits if hit["has_picture"])
            shown = await client.call_tool("picture", {"id": with_picture["id"]})
            return [tool.name for tool in listed.tools], hits, shown.content[0]

    names, hits, shown = asyncio.run(ask())
    assert set(names) == {"search", "similar", "status", "picture"}
    assert {hit["name"] for hit in hits} == {"note.txt", "photo.png"}
    assert shown.mime_type == "image/webp"
    assert base64.b64decode(shown.data)[8:12] == b"WEBP"

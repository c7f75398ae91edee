"""What people do with an index all day: related code, several folders, agents, watching."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.group import search_together
from codeembed.mcp_server import CodeTools
from codeembed.results import IndexReport
from codeembed.settings import Settings, read_settings
from mmembed.errors import ConfigError, IndexMismatchError, InputError

Tree = Callable[[Mapping[str, "str | bytes"]], Path]

RETRY = "def retry(request, times):\n    for _ in range(times):\n        send(request)\n"
FILES = {
    "net/retry.py": RETRY,
    "net/again.py": RETRY.replace("retry", "attempt_again"),
    "draw/circle.py": "def circle(canvas, radius):\n    canvas.arc(radius)\n",
    "tests/test_retry.py": "def test_retry():\n    retry(request, times=3)\n",
}


@pytest.fixture
def index(tree: Tree, model: WordModel) -> CodeIndex:
    made = CodeIndex.open(tree(FILES), model)
    made.update()
    return made


def test_words_answer_before_any_vector_is_there(tree: Tree, model: WordModel) -> None:
    index = CodeIndex.open(tree(FILES), model)
    report = index.update(vectors=False)
    assert (report.embedded, report.waiting, model.embedded) == (0, 4, [])
    first = index.search("retry request", 3)
    assert {hit.path for hit in first[:2]} <= {"net/retry.py", "net/again.py"}
    assert all("dense" not in hit.scores for hit in first)
    assert index.fill()
    assert index.waiting == 0
    assert all("dense" in hit.scores for hit in index.search("retry request", 3))


def test_filling_stops_when_told_and_goes_on_later(tree: Tree, monkeypatch: Any) -> None:
    monkeypatch.setattr("codeembed.filling._BATCH", 1)
    model = WordModel()
    index = CodeIndex.open(tree(FILES), model)
    index.update(vectors=False)
    asked = iter([False, False, True])
    index.fill(stop=lambda: next(asked))
    assert index.waiting == 2
    mixed = index.search("retry request", 4)
    assert {("dense" in hit.scores) for hit in mixed} == {True, False}
    index.fill()
    assert len(model.embedded) == 4


def test_only_one_process_fills(index: CodeIndex) -> None:
    from codeembed.filling import filling

    (index.root / "new.py").write_text("def fresh(): pass\n")
    index.update(vectors=False)
    with filling(index.folder) as mine:
        assert mine
        assert not CodeIndex.open(index.root, WordModel()).fill()
    assert index.fill()


def test_moving_a_folder_embeds_nothing(index: CodeIndex) -> None:
    (index.root / "net").rename(index.root / "transport")
    report = index.update()
    assert (report.added, report.removed, report.embedded, report.reused) == (2, 2, 0, 2)
    assert index.search("attempt_again", 1)[0].path == "transport/again.py"


def test_related_code_is_found_without_the_chunk_itself(index: CodeIndex) -> None:
    found = [hit.path for hit in index.related("net/retry.py", 2, 3)]
    assert found[0] == "net/again.py"
    assert "net/retry.py" not in found
    only = index.related("net/retry.py", 2, 3, glob=["draw/"])
    assert [hit.path for hit in only] == ["draw/circle.py"]
    with pytest.raises(InputError, match=r"nowhere\.py:1: is not in the index"):
        index.related("nowhere.py", 1)


def test_several_folders_are_searched_as_one(
    tree: Tree, tmp_path: Path, index: CodeIndex, model: WordModel
) -> None:
    other_root = tmp_path / "other"
    other_root.mkdir()
    (other_root / "backoff.py").write_text(RETRY.replace("def retry", "def backoff"))
    other = CodeIndex.open(other_root, model)
    other.update()
    hits = search_together("retry", [index, other], 3)
    assert hits[0].path == "net/retry.py"
    assert hits[0].repository == index.root.as_posix()
    by_name = search_together("backoff", [index, other], 1)
    assert (by_name[0].repository, by_name[0].path) == (other_root.as_posix(), "backoff.py")
    strange = CodeIndex.open(other_root, WordModel(fingerprint="v2"), tmp_path / "strange")
    strange.update()
    with pytest.raises(IndexMismatchError, match="different models"):
        search_together("x", [index, strange])
    with pytest.raises(ConfigError, match="at least one"):
        search_together("x", [])


def test_tests_stand_behind_what_they_test_unless_asked_for(index: CodeIndex) -> None:
    assert index.search("retry a request", 1)[0].path.startswith("net/")
    assert index.search("test retry", 1)[0].path == "tests/test_retry.py"


def test_settings_are_read_and_checked(tree: Tree) -> None:
    root = tree(FILES)
    assert read_settings(root) == Settings()
    file = root / ".codeembed.toml"
    file.write_text('k = 3\nignore = ["draw/"]\nbackground = false\n')
    settings = read_settings(root)
    assert (settings.k, settings.ignore, settings.background) == (3, ("draw/",), False)
    for text, message in (
        ("k = ", "cannot be read"),
        ("limit = 3", "unknown 'limit'"),
        ('k = "many"', "k is of type int"),
        ('ignore = "x"', "list of texts"),
        ('mode = "fuzzy"', "choose one of"),
        ("k = 0", "1 or more"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            read_settings(root)
        assert str(file) in str(caught.value)


def test_more_patterns_leave_files_out(tree: Tree, model: WordModel) -> None:
    index = CodeIndex.open(tree(FILES), model)
    report = index.update(ignore=["draw/", "*_retry.py"])
    assert report.files == 2
    assert report.skipped_by_reason == {"ignored": 2}


def test_agents_search_within_their_roots_alone(
    tree: Tree, tmp_path: Path, model: WordModel
) -> None:
    root = tree(FILES)
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "key.py").write_text("KEY = 1\n")
    (root / "door").symlink_to(outside)
    tools = CodeTools([root], model)
    assert tools.status()["exists"] is False
    found = tools.search("retry", k=2)
    assert found["hits"][0]["path"] == "net/retry.py"
    assert "by words alone" in found["note"]
    assert tools.reindex()["embedded"] == 4
    page = tools.search("retry", k=1, offset=1)["hits"]
    assert page == tools.search("retry", k=2)["hits"][1:]
    assert tools.related("net/retry.py", 1, k=1)["hits"][0]["path"] == "net/again.py"
    assert tools.status()["complete"]
    assert tools.search("circle", root="draw", k=1)["hits"][0]["path"] == "circle.py"
    for path in ("door", "..", str(outside), "net/../../secret"):
        for call in (tools.status, tools.reindex, lambda root: tools.search("KEY", root=root)):
            with pytest.raises(InputError, match="outside of what may be searched"):
                call(path)
    assert not (outside / ".codeembed").exists()


def test_the_mcp_server_offers_the_tools(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    server_module = pytest.importorskip("mcp.server")
    import anyio
    from mcp import Client

    from codeembed import mcp_server

    served: list[Any] = []
    monkeypatch.setattr(server_module.MCPServer, "run", lambda self, _: served.append(self))
    real = mcp_server.CodeTools
    monkeypatch.setattr(mcp_server, "CodeTools", lambda roots: real(roots, WordModel()))
    mcp_server.serve([tree(FILES)])

    async def talk() -> tuple[set[str], Any]:
        async with Client(served[0]) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            answer = await client.call_tool("search", {"query": "circle", "k": 1})
            return names, answer

    names, answer = anyio.run(talk)
    assert names == {"search", "related", "status", "reindex"}
    told = json.loads(answer.content[0].text)
    assert told["hits"][0]["path"] == "draw/circle.py"


def test_watching_takes_up_every_change(tree: Tree, model: WordModel) -> None:
    pytest.importorskip("watchfiles")
    from codeembed.watching import watch

    index = CodeIndex.open(tree(FILES), model)
    reports: list[IndexReport] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=watch, args=(index, reports.append), kwargs={"stop": stop}, daemon=True
    )
    thread.start()

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert condition()

    wait(lambda: len(reports) == 1)
    wait(lambda: index.waiting == 0)
    (index.root / "new.py").write_text("def freshly_written(): pass\n")
    wait(lambda: any(hit.path == "new.py" for hit in index.search("freshly_written", 1)))
    (index.root / "new.py").unlink()
    wait(lambda: all(hit.path != "new.py" for hit in index.search("freshly_written", 5)))
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert reports[0].added == 4

"""The index follows its folder, keeps what did not change, and survives anything."""

from __future__ import annotations

import random
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.catalog import Catalog
from codeembed.database import CodeStore
from mmembed.errors import IndexMismatchError, InputError
from mmembed.search.store import StoreLockedError

Tree = Callable[[Mapping[str, "str | bytes"]], Path]

FILES = {
    "app/server.py": (
        "import socket\n\n\nclass Server:\n    def listen(self, port):\n"
        "        return socket.create_server(('', port))\n\n"
        "    def close(self):\n        self.socket.close()\n"
    ),
    "app/util.go": "package util\n\nfunc RetryRequest(n int) error {\n\treturn backoff(n)\n}\n",
    "tests/test_server.py": "def test_listen():\n    assert Server().listen(80)\n",
    "README.md": "# Demo\n\nA server that can listen.\n",
}


def contents(index: CodeIndex) -> dict[str, tuple[str, int, int, str]]:
    """Every row by id, without its vector."""
    assert index._store is not None
    files = index._store.files()
    chunks = index._store.chunks(index._store.chunk_ids().tolist())
    return {
        f"{chunk.path}#{chunk.number}": (
            chunk.text,
            chunk.start_line,
            chunk.end_line,
            files[chunk.path].hash,
        )
        for chunk in chunks
    }


def answers(index: CodeIndex) -> list[tuple[str, int, float]]:
    return [
        (hit.path, hit.start_line, round(hit.score, 5))
        for query in ("listen", "retry request backoff", "value_3")
        for mode in ("hybrid", "dense", "lexical")
        for hit in index.search(query, 20, mode=mode)  # type: ignore[arg-type]
    ]


def test_a_new_index_holds_every_file(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    with CodeIndex.open(root, model) as index:
        assert not index.exists
        report = index.update()
        assert index.exists
        assert (report.files, report.added, report.unchanged) == (4, 4, 0)
        assert report.bytes == sum(len(text) for text in FILES.values())
        assert report.chunks == report.embedded == len(contents(index)) == len(model.embedded)
        assert report.by_language == {"python": 2, "go": 1, "markdown": 1}
    assert (root / ".codeembed" / ".gitignore").read_text() == "*\n"


def test_the_model_never_sees_a_text_over_its_limit(tree: Tree) -> None:
    model = WordModel(max_tokens=40)
    deep = "/".join(["folder_with_a_long_name"] * 6)
    body = "".join(f"    step_{n}(first, second)\n" for n in range(50))
    root = tree({**FILES, f"{deep}/module.py": f"def work():\n{body}"})
    CodeIndex.open(root, model).update()
    assert max(model.count_tokens(model.embedded)) <= 40
    # The name of what a chunk is inside of goes along where it fits.
    assert sum("def work" in text for text in model.embedded) > 5


def test_nothing_changed_costs_no_embedding(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    index = CodeIndex.open(root, model)
    index.update()
    before = len(model.embedded)
    (root / "README.md").touch()
    report = index.update()
    assert (report.unchanged, report.added, report.changed) == (4, 0, 0)
    assert len(model.embedded) == before


def test_one_edit_embeds_one_chunk(tree: Tree, model: WordModel) -> None:
    functions = [
        f"def name_{n}(value):\n" + f"    return value + {n} * other_value(value)\n" * 3
        for n in range(10)
    ]
    root = tree({"a.py": "\n\n".join(functions)})
    index = CodeIndex.open(root, model)
    first = index.update()
    functions[4] = functions[4].replace("other", "another")
    # Everything below moves by a line.
    (root / "a.py").write_text("\n\n\n".join(functions))
    second = index.update()
    assert first.chunks == 10
    assert (second.changed, second.embedded, second.reused) == (1, 1, 9)
    assert [hit.start_line for hit in index.search("name_9", 1)] == [64]


def test_deleted_and_newly_ignored_files_are_gone(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    index = CodeIndex.open(root, model)
    index.update()
    (root / "app" / "util.go").unlink()
    (root / ".gitignore").write_text("tests/\n")
    report = index.update()
    assert report.removed == 2
    found = {hit.path for hit in index.search("listen retry request test", 50)}
    assert found <= {"app/server.py", "README.md", ".gitignore"}


def test_any_sequence_of_changes_equals_a_fresh_index(tree: Tree, tmp_path: Path) -> None:
    rng = random.Random(3)
    root = tree(FILES)
    index = CodeIndex.open(root, WordModel())
    index.update()
    for step in range(12):
        paths = sorted(path for path in root.rglob("*.py") if ".codeembed" not in path.parts)
        action = rng.choice(["edit", "add", "delete", "rename", "swap", "truncate"])
        path = rng.choice(paths) if paths else root / "first.py"
        if action == "edit" or not paths:
            path.write_text("\n".join(f"def value_{n}(): return {step}" for n in range(step)))
        elif action == "add":
            (root / f"new_{step}.py").write_text(f"def listen_{step}():\n    pass\n")
        elif action == "delete":
            path.unlink()
        elif action == "rename":
            path.rename(root / f"moved_{step}.py")
        elif action == "swap" and len(paths) > 1:
            one, two = rng.sample(paths, 2)
            texts = one.read_text(), two.read_text()
            one.write_text(texts[1])
            two.write_text(texts[0])
        else:
            path.write_text("")
        # Sometimes in one process, sometimes in a new one.
        index = index if rng.random() < 0.5 else CodeIndex.open(root, WordModel())
        index.update()
        fresh = CodeIndex.open(root, WordModel(), tmp_path / f"fresh_{step}")
        fresh.update()
        assert contents(index) == contents(fresh)
        assert answers(index) == answers(fresh)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("moment", ["before a batch", "after a batch", "before vectors"])
def test_a_killed_update_is_completed_by_the_next(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    many = {f"m{n}.py": f"def value_{n}():\n    return {n}\n" * 3 for n in range(8)}
    root = tree({**FILES, **many})
    CodeIndex.open(root, WordModel()).update()
    for name in many:
        (root / name).write_text(f"def other_{name[:2]}(): pass\n")
    (root / "README.md").unlink()

    monkeypatch.setattr("codeembed.update._WRITE_FILES", 3)
    name = "add_vectors" if moment == "before vectors" else "replace"
    real = getattr(CodeStore, name)
    calls = []

    def kill(self: CodeStore, *arguments: object) -> None:
        calls.append(arguments)
        if moment == "after a batch" or len(calls) == 2:
            if moment == "after a batch":
                real(self, *arguments)
            raise Killed
        if moment == "before vectors":
            raise Killed
        real(self, *arguments)

    monkeypatch.setattr(CodeStore, name, kill)
    with pytest.raises(Killed):
        CodeIndex.open(root, WordModel()).update()
    monkeypatch.undo()

    again = CodeIndex.open(root, WordModel())
    again.update()
    fresh = CodeIndex.open(root, WordModel(), tmp_path / "fresh")
    fresh.update()
    assert contents(again) == contents(fresh)
    assert answers(again) == answers(fresh)
    assert again.status()["complete"]


def test_damaged_or_missing_columns_change_no_answer(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    index = CodeIndex.open(root, model)
    index.update()
    expected = answers(index)
    index._catalog.save()
    pointer = root / ".codeembed" / "columns"
    folder = root / ".codeembed" / pointer.read_text()
    assert len(Catalog(index.folder, None)) > 0
    for damage in (
        (folder / "ids.npy").unlink,
        lambda: pointer.write_text("columns-nowhere"),
        lambda: shutil.rmtree(folder),
        pointer.unlink,
    ):
        damage()
        assert answers(CodeIndex.open(root, model)) == expected


def test_columns_save_reading_texts(
    tree: Tree, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(FILES)
    index = CodeIndex.open(root, model)
    index.update()
    expected = answers(index)
    index._catalog.save()
    (root / "new.py").write_text("def brand_new(): pass\n")
    index.update()
    again = CodeIndex.open(root, model)
    asked: list[int] = []
    real = CodeStore.chunks
    monkeypatch.setattr(CodeStore, "chunks", lambda self, ids: asked.extend(ids) or real(self, ids))
    again.source()
    assert len(asked) == 1  # the new file's chunk alone
    (root / "new.py").unlink()
    again.update()
    assert answers(again) == expected


def test_another_model_is_refused_and_told_what_to_do(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    CodeIndex.open(root, model).update()
    for other in (WordModel(fingerprint="v2"), WordModel(max_tokens=50)):
        with pytest.raises(IndexMismatchError, match=r"delete .* and index again"):
            CodeIndex.open(root, other)


def test_the_index_moves_with_its_folder_and_works_without_the_sources(
    tree: Tree, tmp_path: Path, model: WordModel
) -> None:
    root = tree(FILES)
    CodeIndex.open(root, model).update()
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    assert CodeIndex.open(moved, model).update().unchanged == 4
    shutil.rmtree(moved / "app")
    hit = CodeIndex.open(moved, model).search("RetryRequest", 1)[0]
    assert (hit.path, hit.text.splitlines()[2]) == (
        "app/util.go",
        "func RetryRequest(n int) error {",
    )


def test_an_index_may_live_elsewhere(tree: Tree, tmp_path: Path, model: WordModel) -> None:
    root = tree(FILES)
    index = CodeIndex.open(root, model, tmp_path / "store")
    index.update()
    assert not (root / ".codeembed").exists()
    assert CodeIndex.open(root, model, tmp_path / "store").search("listen", 1)


def test_a_second_writer_is_refused_while_readers_go_on(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    one, two = CodeIndex.open(root, model), CodeIndex.open(root, model)
    one.update()
    two = CodeIndex.open(root, model)
    assert one._store is not None
    with one._store.writing():
        with pytest.raises(StoreLockedError):
            two.update()
        assert two.search("listen", 1)
    assert two.update().unchanged == 4


def test_a_reader_sees_what_another_process_wrote(tree: Tree, model: WordModel) -> None:
    root = tree(FILES)
    CodeIndex.open(root, model).update()
    reader = CodeIndex.open(root, model)
    assert reader.search("freshly_written", 1, mode="lexical") == []
    (root / "new.py").write_text("def freshly_written():\n    pass\n")
    CodeIndex.open(root, model).update()
    assert reader.search("freshly_written", 1, mode="lexical")[0].path == "new.py"


def test_chunks_that_the_model_refuses_are_told_and_harm_no_other(
    tree: Tree, model: WordModel
) -> None:
    root = tree({**FILES, "bad.py": "x = 'POISON'\n"})
    index = CodeIndex.open(root, model)
    report = index.update()
    assert report.failed == ["bad.py:1: text: is poison"]
    assert (report.files, report.waiting) == (5, 1)
    assert index.search("POISON", 1, mode="lexical")[0].path == "bad.py"
    assert not index.status()["complete"]
    # It is tried again.
    assert CodeIndex.open(root, model).update().failed == report.failed


def test_files_that_vanish_during_the_update_are_skipped(
    tree: Tree, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(FILES)
    real = CodeStore.files

    def remove_one(self: CodeStore) -> object:
        (root / "README.md").unlink()
        return real(self)

    monkeypatch.setattr(CodeStore, "files", remove_one)
    report = CodeIndex.open(root, model).update()
    assert report.files == 3
    assert report.skipped_by_reason == {"unreadable": 1}


def test_processes_give_the_same_index(tree: Tree, tmp_path: Path) -> None:
    files = {f"m{n}.py": f"def value_{n}(x):\n    return x + {n}\n" * 9 for n in range(70)}
    root = tree({**files, "bad.csv": "1", "blank.py": "\n"})
    one = CodeIndex.open(root, WordModel(), tmp_path / "one")
    many = CodeIndex.open(root, PortableModel(), tmp_path / "many")
    one.update(workers=1)
    many.update(workers=2)
    assert contents(one) == contents(many)


class PortableModel(WordModel):
    """Brings a real tokenizer, which worker processes can be given."""

    def __init__(self) -> None:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

        super().__init__()
        self.tokenizer = Tokenizer(models.WordLevel({"[B]": 0, "[E]": 1, "?": 2}, unk_token="?"))
        split = pre_tokenizers.Split(Regex(r"\w{1,6}|[^\w\s]"), "removed", invert=True)
        self.tokenizer.pre_tokenizer = split
        self.tokenizer.post_processor = processors.TemplateProcessing(
            single="[B] $A [E]", special_tokens=[("[B]", 0), ("[E]", 1)]
        )


def test_the_counter_of_a_tokenizer_is_portable_and_agrees() -> None:
    from codeembed.tokens import portable_counter

    model = PortableModel()
    counter = portable_counter(model)
    assert counter is not None
    texts = ["", "def parse_arguments(x): pass", "héé 日本語"]
    assert counter(texts) == model.count_tokens(texts)
    assert portable_counter(WordModel()) is None


def test_no_network_is_needed(
    tree: Tree, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    root = tree(FILES)
    index = CodeIndex.open(root, model)
    index.update()
    assert index.search("listen", 1)


def test_errors_say_what_to_do(tree: Tree, model: WordModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        CodeIndex.open(tmp_path / "nothing", model)
    index = CodeIndex.open(tree(FILES), model)
    for action in (lambda: index.search("x"), index.status):
        with pytest.raises(InputError, match="run: codeembed index"):
            action()
    index.update()
    with pytest.raises(InputError, match="query: is empty"):
        index.search(" ")


def test_status_tells_what_is_there(tree: Tree, model: WordModel) -> None:
    root = tree({**FILES, "x.csv": "1"})
    index = CodeIndex.open(root, model)
    report = index.update()
    status = CodeIndex.open(root).status()
    assert status["files"] == 4
    assert status["chunks"] == report.chunks
    assert status["model"] == "words"
    assert status["complete"]
    last = status["last_update"]
    assert isinstance(last, dict)
    assert last["skipped_by_reason"] == {"data-file": 1}
    assert last["skipped"] == [{"path": "x.csv", "reason": "data-file", "detail": ""}]

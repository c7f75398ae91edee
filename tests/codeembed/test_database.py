"""The database of an index: whole files, vectors by content, readers beside a writer."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from codeembed.database import ChunkRow, CodeStore, FileRow
from mmembed.errors import InputError


def chunk(path: str, number: int, text: str, *symbols: str) -> ChunkRow:
    return ChunkRow(
        0, path, number, 3 * number + 1, 3 * number + 3, "s", "function", path, "python", symbols,
        ("function", "class"), f"hash of {text}", text,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    made = CodeStore(tmp_path, create=True)
    made.describe({"made": "here"})
    made.replace(
        [
            (
                FileRow("a.py", "h1", 10, "t"),
                [chunk("a.py", 0, "one", "Foo.bar"), chunk("a.py", 1, "two")],
            ),
            (FileRow("b.py", "h2", 20, "t"), [chunk("b.py", 0, "one", "Baz")]),
            (FileRow("c.bin", "", 5, "t", "binary", "zeros"), []),
        ]
    )  # fmt: skip
    return made


def test_files_and_chunks_come_back_as_they_were(store: CodeStore) -> None:
    assert store.files()["c.bin"] == FileRow("c.bin", "", 5, "t", "binary", "zeros")
    assert store.count() == (2, 30, 3, 3)
    first = next(iter(store.chunks(store.chunk_ids().tolist())))
    assert (first.symbols, first.kinds, first.text) == (("Foo.bar",), ("function", "class"), "one")
    assert store.defining(["bar"]) == store.defining(["foo"]) == {first.id}


def test_ids_are_never_given_twice(store: CodeStore) -> None:
    before = set(store.chunk_ids().tolist())
    store.replace([(FileRow("b.py", "h3", 21, "t"), [chunk("b.py", 0, "three")])])
    store.remove(["a.py"])
    store.replace([(FileRow("a.py", "h4", 21, "t"), [chunk("a.py", 0, "four")])])
    assert before.isdisjoint(store.chunk_ids().tolist())
    assert store.defining(["bar", "baz"]) == set()


def test_vectors_belong_to_content_and_go_with_the_last_of_it(store: CodeStore) -> None:
    assert [each.text for each in store.without_vector(10)] == ["one", "two"]
    store.add_vectors({"hash of one": np.array([3.0, 4.0], np.float32)})
    assert store.count()[3] == 1
    hashes, matrix, last = store.new_vectors(0)
    assert hashes == ["hash of one"]
    np.testing.assert_allclose(matrix, [[0.6, 0.8]], atol=1e-3)
    assert store.new_vectors(last)[0] == []
    store.remove(["a.py"])
    store.drop_unused_vectors()
    assert store.having_vectors(["hash of one"]) == {"hash of one"}
    store.remove(["b.py"])
    store.drop_unused_vectors()
    assert store.having_vectors(["hash of one"]) == set()


def test_a_line_is_in_a_chunk_or_near_one(store: CodeStore) -> None:
    for line, number in ((1, 0), (3, 0), (5, 1), (400, 1)):
        found = store.at("a.py", line)
        assert found is not None
        assert found.number == number
    assert store.at("nowhere.py", 1) is None


def test_a_failed_change_changes_nothing(store: CodeStore) -> None:
    twice = [(FileRow("d.py", "h", 1, ""), [chunk("d.py", 0, "x")])] * 2
    with pytest.raises(sqlite3.IntegrityError):
        store.replace(twice)
    assert "d.py" not in store.files()
    assert store.count()[2] == 3


def test_readers_see_whole_states_while_another_writes(store: CodeStore, tmp_path: Path) -> None:
    reader = CodeStore(tmp_path)
    seen = reader.version()
    writer = sqlite3.connect(tmp_path / "code.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM files")
    assert len(reader.files()) == 3
    assert reader.version() == seen
    writer.execute("COMMIT")
    assert reader.files() == {}
    assert reader.version() != seen


def test_an_index_that_cannot_be_written_can_be_read(store: CodeStore, tmp_path: Path) -> None:
    store.close()
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    (tmp_path / "code.db").chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert len(CodeStore(tmp_path).files()) == 3
    finally:
        tmp_path.chmod(0o700)


def test_a_damaged_file_is_told(store: CodeStore, tmp_path: Path) -> None:
    store.close()
    (tmp_path / "code.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(InputError, match=r"delete .* and index again"):
        CodeStore(tmp_path)
    with pytest.raises(FileNotFoundError):
        CodeStore(tmp_path / "nowhere")

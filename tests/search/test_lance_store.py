"""What is particular to the store on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmembed.search import lance_store
from mmembed.search.lance_store import LanceStore
from mmembed.search.memory_store import MemoryStore
from mmembed.search.store import Record, Vector

DIM = 64


def clustered(n: int, seed: int) -> Vector:
    """Vectors with near and far neighbours, as embeddings have."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((100, DIM))
    return (centres[rng.integers(100, size=n)] + 0.5 * rng.standard_normal((n, DIM))).astype("f4")


def test_create_and_open(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "store"
    assert not LanceStore.exists(folder)
    with pytest.raises(FileNotFoundError, match="holds no index"):
        LanceStore.open(folder)
    LanceStore.create(folder, dim=DIM, fields={"n": "int"}, meta={"a": "b"})
    assert LanceStore.exists(folder)
    with pytest.raises(FileExistsError):
        LanceStore.create(folder, dim=DIM)
    store = LanceStore.open(folder)
    assert (store.dim, store.fields, store.meta) == (DIM, {"n": "int"}, {"a": "b"})


def test_what_a_killed_create_left_is_no_store(tmp_path: Path) -> None:
    table = tmp_path / "items.lance"
    (table / "_versions").mkdir(parents=True)
    (table / "data").mkdir()
    (table / "data" / "half.lance").write_bytes(b"LAN")
    assert not LanceStore.exists(tmp_path)
    store = LanceStore.create(tmp_path, dim=DIM)
    store.upsert([Record("a", np.ones(DIM, np.float32), "word")])
    assert LanceStore.open(tmp_path).search_text("word", 1)


def test_a_create_killed_before_its_text_index_is_finished_by_the_next_write(
    tmp_path: Path,
) -> None:
    LanceStore.create(tmp_path, dim=DIM)
    store = LanceStore.open(tmp_path)
    assert store.search_text("word", 1) == []
    store.upsert([Record("a", np.ones(DIM, np.float32), "word")])
    assert store.search_text("word", 1)[0].record.id == "a"


def test_an_open_store_sees_what_another_writes(tmp_path: Path) -> None:
    writer = LanceStore.create(tmp_path, dim=DIM)
    reader = LanceStore.open(tmp_path)
    writer.add_fields({"new": "int"})
    writer.upsert([Record("a", np.ones(DIM, np.float32), fields={"new": 3})])
    assert reader.count("new == 3") == 1
    assert reader.search(np.ones(DIM, np.float32), 1)[0].record.fields == {"new": 3}
    writer.delete({"id": "a"})
    assert reader.get(["a"]) == {}


def test_large_stores_get_an_approximate_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_store, "_MIN_INDEXED_ROWS", 4000)
    store, oracle = LanceStore.create(tmp_path, dim=DIM), MemoryStore(DIM)
    rows = [
        Record(f"i{i}", vector, fields={"n": i % 10})
        for i, vector in enumerate(clustered(5000, seed=0))
    ]
    for each in (store, oracle):
        each.add_fields({"n": "int"})
        each.upsert(rows[:3000])
    store.optimize()
    assert store.stats().vector_index is None
    for each in (store, oracle):
        each.upsert(rows[3000:])
    store.optimize()
    assert store.stats().vector_index is not None
    assert store.stats().unindexed_rows == 0
    late = Record("late", clustered(1, seed=5)[0], fields={"n": 3})
    for each in (store, oracle):
        each.upsert([late])
        each.delete("n == 7")

    def recall(where: str | None) -> float:
        found = 0
        for query in clustered(20, seed=1):
            wanted = {hit.record.id for hit in oracle.search(query, 10, where)}
            found += len(wanted & {hit.record.id for hit in store.search(query, 10, where)})
        return found / 200

    assert recall(None) > 0.9
    assert recall("n == 3") > 0.9
    assert late.vector is not None
    hit = store.search(late.vector, 1)[0]
    assert hit.record.id == "late"
    assert hit.score == pytest.approx(1.0, abs=1e-5)  # scored again with the full vectors
    store.optimize()
    assert store.stats().unindexed_rows == 0


def test_nothing_is_printed_or_logged(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from mmembed.search.lance_store import LanceStore
from mmembed.search.store import Record
store = LanceStore.create(sys.argv[1], dim=8, fields={"n": "int"})
store.upsert([Record(f"i{i}", np.eye(8)[i % 8], f"word {i}", {"n": i}) for i in range(50)])
store.search(np.ones(8), 3, "n > 3")
store.search_text("word", 3, "n > 3")
store.delete("n == 3")
store.optimize()
store.stats()
"""
    command = [sys.executable, "-W", "default", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")

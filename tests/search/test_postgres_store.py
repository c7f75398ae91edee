"""What only a store on a real database server can do: many processes, and ``kill -9`` of either."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hash_model import HashModel
from token_model import TokenModel

from mmembed.errors import ConfigError, IndexMismatchError, InputError, MmembedError
from mmembed.search.index import Index, LateInteraction
from mmembed.search.store import Record

if TYPE_CHECKING:
    from database import Database

WORKER = Path(__file__).with_name("adding_worker.py")
TEXTS = ["a red bicycle in the snow", "two dogs play in the snow", "a green car"]


def start(url: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), url, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "adding\n"
    return process


def wait_for(index: Index, rows: int) -> None:
    deadline = time.monotonic() + 120
    while len(index) < rows:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def texts_in(index: Index) -> list[str]:
    assert index._store is not None
    return sorted(record.text for record in index._store.scan())


def test_kills_and_many_writers_lose_and_double_nothing(database: Database) -> None:
    url = database.url("kills")
    with Index.open(url, HashModel()) as index:
        index.add(["text number 0 of many"])
        writer = start(url, 1500)
        wait_for(index, 100)
        writer.kill()
        writer.communicate()
        written = texts_in(index)
        assert 100 <= len(written) == len(set(written))

        writer = start(url, 1500)
        wait_for(index, len(written) + 200)
        database.kill()
        database.start()
        _, told = writer.communicate(timeout=200)
        # Between two writes it goes on over a new connection, within one it says what happened.
        assert writer.returncode == 0 or "StoreServerError: kills: PostgreSQL: " in told
        assert set(written) < set(texts_in(index))  # over the connections of before

        # Two at once, which write the same, and one of them more.
        writers = [start(url, count) for count in (1000, 1500)]
        for writer in writers:
            _, told = writer.communicate(timeout=200)
            assert writer.returncode == 0, told
        assert texts_in(index) == sorted(f"text number {i} of many" for i in range(1500))
        assert index.search("text number 1321 of many", 1)[0].metadata == {"number": 1321}


def test_an_index_in_a_database_answers_like_one_in_a_folder(
    database: Database, tmp_path: Path
) -> None:
    model, late = TokenModel(), LateInteraction(codec="float16")
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{i}.txt").write_text(text)
    with (
        Index.open(database.url("things"), model, late=late) as there,
        Index.open(tmp_path / "index", model, late=late) as here,
    ):
        for index in (there, here):
            assert index.search("dogs") == []
            assert index.add(TEXTS, metadata=[{"year": i} for i in range(3)]).added == 3
            assert index.add(TEXTS).unchanged == 3
            assert index.add(tmp_path / "texts").added == 3
            assert index.add(tmp_path / "texts").unchanged == 3
            assert index.update({"year": 9, "new": True}, filter="year == 1") == 1
        for how in ({"mode": "dense"}, {"maxsim": 100}, {"maxsim": 2, "k": 2}, {"mode": "text"}):
            found = [
                [(hit.text, hit.metadata) for hit in index.search("red bicycle", **{"k": 3, **how})]
                for index in (there, here)
            ]
            assert [text for text, _ in found[0]] == [text for text, _ in found[1]], how
        assert there.search("dogs", 1, filter="year >= 9")[0].text == TEXTS[1]
        scores = [index.search("dogs", 1, maxsim=10)[0].score for index in (there, here)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-3)
        assert there.delete(filter="year == 9") == 1
        assert len(there) == 5
        assert there.stats().model_name == "hash"
        assert len(list(there.sample(10))) == 5
        with pytest.raises(IndexMismatchError, match="v2"):
            Index.open(database.url("things"), TokenModel(fingerprint="v2")).search("x")


def test_large_stores_get_an_approximate_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmembed.search import postgres_store as module

    monkeypatch.setattr(module, "_MIN_INDEXED_ROWS", 2000)
    rng = np.random.default_rng(0)
    # Clusters, as real embeddings have.
    centres = rng.standard_normal((50, 32))
    rows = (centres[rng.integers(0, 50, 4000)] + 0.5 * rng.standard_normal((4000, 32))).astype("f4")
    url, _, name = database.url("large").rpartition("/")
    about = {"dim": 32, "fields": {"tenth": "int"}, "summary_dim": 32}
    store = module.PostgresStore.create(url, name, **about)
    store.upsert(
        [Record(str(i), row, "", {"tenth": i % 10}, b"x", row) for i, row in enumerate(rows)]
    )
    assert store.stats().vector_index is None
    store.optimize()
    assert store.stats().vector_index == "HNSW"
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for where, passing in ((None, unit), ("tenth == 3", unit[3::10])):
        recall = []
        for query in rows[:20]:
            best = passing[np.argsort(-(passing @ query))[:10]] @ query / np.linalg.norm(query)
            hits = store.search(query, 10, where)
            assert where is None or all(int(hit.record.id) % 10 == 3 for hit in hits)
            recall.append(np.mean([hit.score >= best[-1] - 1e-5 for hit in hits]) * len(hits) / 10)
        assert np.mean(recall) > 0.95
    assert dict(store.search_summary(rows[7], 3))["7"] == pytest.approx(rows[7] @ rows[7], rel=1e-2)
    store.close()


def test_what_a_database_cannot_do_is_said(database: Database) -> None:
    from mmembed.search.postgres_store import PostgresStore

    url, _, name = database.url(f"odd{uuid.uuid4().hex}").rpartition("/")
    store = PostgresStore.create(url, name, dim=4)
    with pytest.raises(FileExistsError, match="holds an index already"):
        PostgresStore.create(url, name, dim=4)
    with pytest.raises(InputError, match="longer than 63"):
        store.add_fields({"a" * 64: "int"})
    with pytest.raises(InputError, match="longer than 2600 bytes"):
        store.upsert([Record("good", np.ones(4)), Record("x" * 3000, np.ones(4))])
    assert store.count() == 0
    store.close()
    with pytest.raises(MmembedError, match=r"things: PostgreSQL: .*nobody") as caught:
        Index.open(f"{url.replace('postgres@', 'nobody:geheim@')}/things", HashModel()).search("x")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["milvus://h/d/x", "postgresql://host", "postgresql://host/db", "postgresql://h/d/a/b"],
)
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://HOST"):
        Index.open(url, HashModel())
    with pytest.raises(ConfigError) as caught:
        Index.open(url.replace("://", "://me:geheim@"), HashModel())
    assert "geheim" not in str(caught.value)

"""What every vector store must do: one suite, run on each of them.

The exact answers come from numpy here, not from one of the stores.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmembed.errors import InputError
from mmembed.search.lance_store import LanceStore
from mmembed.search.memory_store import MemoryStore
from mmembed.search.store import FieldType, Record, StoreLockedError, Vector, VectorStore

DIM = 16
FIELDS: dict[str, FieldType] = {
    "kind": "str",
    "year": "int",
    "score": "float",
    "draft": "bool",
    "tags": "list[str]",
}
StoreFactory = Callable[..., VectorStore]


@pytest.fixture(params=["memory", "lance", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFactory]:
    made: list[VectorStore] = []

    def create(
        fields: Mapping[str, FieldType] = FIELDS,
        meta: Mapping[str, str] | None = None,
        summary_dim: int = 0,
    ) -> VectorStore:
        about = {"fields": fields, "meta": meta, "summary_dim": summary_dim}
        store: VectorStore
        if request.param == "memory":
            store = MemoryStore(DIM, **about)
        elif request.param == "lance":
            store = LanceStore.create(tmp_path / "store", dim=DIM, **about)
        else:
            server = request.getfixturevalue("database")
            from mmembed.search.postgres_store import PostgresStore

            url, _, name = server.url(f"i{uuid.uuid4().hex}").rpartition("/")
            store = PostgresStore.create(url, name, dim=DIM, **about)
        made.append(store)
        return store

    yield create
    for store in made:
        store.close()


@pytest.fixture
def store(make: StoreFactory) -> VectorStore:
    return make()


def vectors(n: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def records(n: int, seed: int = 0) -> list[Record]:
    """Records of which every field is missing in some."""
    rows = []
    for i, vector in enumerate(vectors(n, seed)):
        fields = {
            "kind": ("image", "text", None)[i % 3],
            "year": 2000 + i % 20 if i % 7 else None,
            "score": i / 10 if i % 5 else None,
            "draft": bool(i % 2) if i % 4 else None,
            "tags": [f"t{i % 3}", f"t{i % 4}"] if i % 6 else None,
        }
        rows.append(Record(f"id-{i}", vector, f"word{i} common text", fields))
    return rows


def exact(query: Vector, rows: list[Record], k: int) -> list[str]:
    matrix = np.stack([row.vector for row in rows if row.vector is not None])
    cosine = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
    return [rows[i].id for i in np.argsort(-cosine)[:k]]


def ids(hits: list) -> list[str]:
    return [hit.record.id for hit in hits]


def test_an_empty_store_answers_everything(store: VectorStore) -> None:
    assert store.search(vectors(1)[0], 5) == []
    assert store.search_text("dog", 5) == []
    assert store.get(["x"]) == {}
    assert list(store.scan()) == []
    assert store.count() == store.count("year > 3") == 0
    assert store.delete("year > 3") == 0
    store.upsert([])
    store.optimize()
    assert store.stats().rows == 0
    assert store.stats().dim == DIM


def test_what_goes_in_comes_out(store: VectorStore) -> None:
    rows = records(30)
    store.upsert(rows)
    found = store.get([row.id for row in rows], vectors=True)
    for row in rows:
        got = found[row.id]
        assert row.vector is not None
        assert got.vector is not None
        np.testing.assert_array_equal(got.vector, row.vector)
        assert got.text == row.text
        assert got.fields == {name: v for name, v in row.fields.items() if v is not None}
    assert store.get(["id-3"])["id-3"].vector is None
    assert store.count() == 30


def test_dense_search_is_exact_and_ordered(store: VectorStore) -> None:
    rows = records(200)
    store.upsert(rows)
    for query in vectors(5, seed=9):
        hits = store.search(query, 10)
        assert ids(hits) == exact(query, rows, 10)
        best = rows[int(hits[0].record.id.removeprefix("id-"))].vector
        assert best is not None
        cosine = best @ query / np.linalg.norm(best) / np.linalg.norm(query)
        assert hits[0].score == pytest.approx(float(cosine), abs=1e-5)


@pytest.mark.parametrize("k", [0, 1, 7, 1000])
def test_k(store: VectorStore, k: int) -> None:
    store.upsert(records(20))
    assert len(store.search(vectors(1)[0], k)) == min(k, 20)
    assert len(store.search_text("common", k)) == min(k, 20)


FILTERS = [
    'kind == "image"',
    'kind != "image"',
    "not (kind == 'image' or year > 2010)",
    "year >= 2005 and year < 2009",
    "year > 2007",
    "year in [2001, 2002, 2003]",
    "year not in [2001, 2002, 2003]",
    "year in []",
    "not (year in [])",
    "score <= 1.5",
    "score == 3",
    "draft == true",
    "not draft == true",
    "tags contains 't1'",
    "tags not contains 't1'",
    "kind is null and year is not null",
    "text contains 'word1'",
    "id like 'id-1?'",
    "id like '*-1*' and not kind like 'im*'",
]


@pytest.mark.parametrize("where", FILTERS)
def test_filters_choose_before_the_best_k(store: VectorStore, where: str) -> None:
    rows = records(200)
    store.upsert(rows)
    oracle = MemoryStore(DIM, FIELDS)
    oracle.upsert(rows)
    wanted = {record.id for record in oracle.scan(where)}
    assert {record.id for record in store.scan(where)} == wanted
    assert store.count(where) == len(wanted)
    passing = [row for row in rows if row.id in wanted]
    query = vectors(1, seed=4)[0]
    # Were the filter applied to the best k, a small k would come back short.
    assert ids(store.search(query, 5, where)) == (exact(query, passing, 5) if passing else [])
    assert set(ids(store.search_text("common", 200, where))) == wanted
    assert len(store.search_text("common", 3, where)) == min(3, len(wanted))


AWKWARD = [
    "Überraschung/中文/😀.jpg",
    "it's",
    'say "hi"',
    "back\\slash",
    "100%_sure",
    "semi;colon -- comment",
    "new\nline",
    " space ",
    "`tick`",
    "' OR 1=1 --",
    "') OR TRUE --",
    "\x00nul",
]


@pytest.mark.parametrize("odd", AWKWARD)
def test_awkward_text_is_only_data(store: VectorStore, odd: str) -> None:
    plain = Record("plain", vectors(2)[0], "nothing", {"kind": "x"})
    store.upsert([plain, Record(odd, vectors(2)[1], odd, {"kind": odd, "tags": [odd]})])
    assert store.get([odd])[odd].fields == {"kind": odd, "tags": [odd]}
    for where in (
        {"id": odd},
        {"kind": odd},
        {"kind": [odd]},
        {"tags": {"contains": odd}},
        {"kind": {"contains": odd}},
        {"kind": {"like": odd}},
        {"kind": {"like": odd[:2] + "*"}},
    ):
        assert [record.id for record in store.scan(where)] == [odd], where
    assert store.search(vectors(1)[0], 5, {"kind": odd})[0].record.id == odd
    store.search_text(odd, 5)
    assert store.delete({"id": odd}) == 1
    assert [record.id for record in store.scan()] == ["plain"]


def test_like_takes_sql_wildcards_literally(store: VectorStore) -> None:
    names = ["a_b", "axb", "a%b", "a\\b", "A_B"]
    store.upsert([Record(name, vector) for name, vector in zip(names, vectors(5), strict=True)])
    for name in names:
        assert [record.id for record in store.scan({"id": {"like": name}})] == [name]
    assert {record.id for record in store.scan("id like 'a?b'")} == {"a_b", "axb", "a%b", "a\\b"}


def test_upsert_replaces_whole_records(store: VectorStore) -> None:
    store.upsert(records(10))
    new = Record("id-3", vectors(1, seed=5)[0], "fresh words", {"year": 1990})
    store.upsert([new, Record("id-new", vectors(1, seed=6)[0])])
    assert store.count() == 11
    got = store.get(["id-3"], vectors=True)["id-3"]
    assert got.fields == {"year": 1990}
    assert got.text == "fresh words"
    assert new.vector is not None
    assert ids(store.search(new.vector, 1)) == ["id-3"]
    assert ids(store.search_text("fresh", 5)) == ["id-3"]
    assert "id-3" not in ids(store.search_text("word3", 5))


def test_delete_by_filter(store: VectorStore) -> None:
    store.upsert(records(30))
    assert store.delete('kind == "image"') == 10
    assert store.count() == 20
    assert store.count('kind == "image"') == 0
    assert all(hit.record.fields.get("kind") != "image" for hit in store.search(vectors(1)[0], 30))
    assert store.delete({"id": ["id-1", "id-2", "absent"]}) == 2


def test_text_search_ranks_rare_words_first(store: VectorStore) -> None:
    store.upsert(
        [
            Record("both", vectors(3)[0], "A red bicycle, in the snow."),
            Record("one", vectors(3)[1], "A red house"),
            Record("none", vectors(3)[2], "nothing here"),
        ]
    )
    hits = store.search_text("RED bicycle", 5)
    assert ids(hits) == ["both", "one"]
    assert hits[0].score > hits[1].score > 0
    assert store.search_text("", 5) == store.search_text("?!", 5) == []


def test_a_digit_is_a_word(store: VectorStore) -> None:
    rows = [Record(str(i), vector, f"chapter {i}") for i, vector in enumerate(vectors(9))]
    store.upsert(rows)
    assert ids(store.search_text("7", 3)) == ["7"]
    assert ids(store.search_text("chapter 4", 3))[0] == "4"


@pytest.mark.parametrize("query", ['"', "(", "a AND", "red*", "text:red", "+red -house", "\\"])
def test_text_queries_have_no_syntax(store: VectorStore, query: str) -> None:
    store.upsert([Record("x", vectors(1)[0], "red")])
    assert ids(store.search_text(query, 5)) in ([], ["x"])


def test_scan_reads_only_what_is_asked_for(store: VectorStore) -> None:
    store.upsert(records(3))
    got = next(iter(store.scan({"id": "id-1"}, fields=["year"])))
    assert got == Record("id-1", None, "", {"year": 2001})
    got = next(iter(store.scan({"id": "id-1"}, fields=["text"], vectors=True)))
    assert got.text == "word1 common text"
    assert got.vector is not None


def test_fields_can_be_added_later(store: VectorStore) -> None:
    store.upsert(records(3))
    with pytest.raises(InputError, match="colour"):
        store.count("colour == 'red'")
    store.add_fields({"colour": "str", "year": "int"})
    assert store.fields == {**FIELDS, "colour": "str"}
    assert store.count("colour == 'red'") == 0
    store.upsert([Record("new", vectors(1)[0], fields={"colour": "red"})])
    assert [record.id for record in store.scan("colour == 'red'")] == ["new"]
    assert store.count("colour != 'red'") == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [("text", "str"), ("a b", "str"), ("", "str"), ("é", "str"), ("year", "str"), ("YEAR", "int")],
)
def test_unusable_fields_are_refused(store: VectorStore, name: str, kind: FieldType) -> None:
    with pytest.raises(InputError, match="field"):
        store.add_fields({name: kind})
    assert store.fields == FIELDS


GOOD = np.ones(DIM, np.float32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([Record("", GOOD)], "non-empty"),
        ([Record("a", GOOD), Record("a", GOOD)], "twice"),
        ([Record("a", None)], "no vector"),
        ([Record("a", np.ones(DIM + 1, np.float32))], r"\(17,\).*\(16,\)"),
        ([Record("a", np.zeros(DIM, np.float32))], "zero"),
        ([Record("a", np.full(DIM, np.nan, np.float32))], "not finite"),
        ([Record("a", GOOD, fields={"unknown": 1})], "unknown field 'unknown'"),
        ([Record("a", GOOD, fields={"year": "2020"})], "year.*int"),
        ([Record("a", GOOD, fields={"year": 2.5})], "year.*int"),
        ([Record("a", GOOD, fields={"year": True})], "year.*int"),
        ([Record("a", GOOD, fields={"year": 2**63})], "64-bit"),
        ([Record("a", GOOD, fields={"score": float("inf")})], "finite"),
        ([Record("a", GOOD, fields={"kind": "\udcff"})], "Unicode"),
        ([Record("\udcff", GOOD)], "Unicode"),
    ],
)
def test_bad_records_are_refused_whole(store: VectorStore, bad: list[Record], message: str) -> None:
    with pytest.raises(InputError, match=message):
        store.upsert([Record("good", GOOD), *bad])
    assert store.count() == 0


def test_bad_queries_are_refused(store: VectorStore) -> None:
    store.upsert(records(3))
    with pytest.raises(InputError, match=r"query vector.*shape"):
        store.search(np.ones(DIM - 1, np.float32), 3)
    with pytest.raises(InputError, match="zero"):
        store.search(np.zeros(DIM, np.float32), 3)
    with pytest.raises(InputError, match="unknown field"):
        store.search(GOOD, 3, "nope == 1")


def test_ints_fit_float_fields(store: VectorStore) -> None:
    store.upsert([Record("a", GOOD, fields={"score": 3})])
    assert store.get(["a"])["a"].fields == {"score": 3.0}
    assert store.count("score == 3") == 1


def test_meta_is_kept(make: StoreFactory) -> None:
    meta = {"model": "mini", "ünïcode": "中"}
    store = make(meta=meta)
    store.add_fields({"more": "str"})
    store.upsert([Record("a", GOOD)])
    store.optimize()
    assert store.meta == meta


def test_optimize_changes_no_answer(store: VectorStore) -> None:
    rows = records(300)
    for start in range(0, 300, 20):
        store.upsert(rows[start : start + 20])
    store.delete("year == 2003")
    query = vectors(1, seed=2)[0]
    before = ids(store.search(query, 20)), store.count(), ids(store.search_text("word17", 5))
    store.optimize()
    assert (
        ids(store.search(query, 20)),
        store.count(),
        ids(store.search_text("word17", 5)),
    ) == before
    store.upsert([Record("late", query, "late words")])
    assert ids(store.search(query, 1)) == ["late"]
    assert ids(store.search_text("late", 1)) == ["late"]


def test_two_threads_do_not_write_at_once(store: VectorStore) -> None:
    seen: list[BaseException | int] = []

    def other() -> None:
        try:
            store.upsert([Record("x", GOOD)])
        except StoreLockedError as error:
            seen.append(error)
        seen.append(store.count())  # reading is never blocked

    with store.writing():
        store.upsert([Record("mine", GOOD)])  # reentrant
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert isinstance(seen[0], StoreLockedError)
    assert seen[1] == 1
    store.upsert([Record("y", GOOD)])
    assert store.count() == 2


def test_tokens_and_summaries_come_back_and_rank_by_dot_product(make: StoreFactory) -> None:
    store = make(summary_dim=8)
    assert store.summary_dim == 8
    # Powers of two, which half floats hold exactly, and of unequal length.
    summaries = 2.0 ** np.random.default_rng(3).integers(-3, 3, (40, 8)).astype(np.float32)
    rows = [
        replace(row, tokens=bytes([i, 1]), summary=summaries[i])
        for i, row in enumerate(records(40))
    ]
    store.upsert(rows)
    query = np.array([1, -1, 0.5, 0.25, 1, -0.5, 1, 1], np.float32)
    scores = dict(zip([row.id for row in rows], (summaries @ query).tolist(), strict=True))

    def check() -> None:
        for where in (None, 'kind == "image"'):
            passing = [each.id for each in store.scan(where)]
            hits = store.search_summary(query, 7, where)
            wanted = sorted((scores[key] for key in passing), reverse=True)[:7]
            assert [score for _, score in hits] == pytest.approx(wanted, abs=1e-4)
            assert [scores[key] for key, _ in hits] == pytest.approx(wanted, abs=1e-4)
            assert set(dict(store.scan_tokens(where))) == set(passing)

    check()
    assert dict(store.scan_tokens({"id": "id-3"})) == {"id-3": bytes([3, 1])}
    found = store.get(["id-5"], vectors=True)["id-5"]
    assert found.tokens == bytes([5, 1])
    np.testing.assert_array_equal(found.summary, summaries[5])  # type: ignore[arg-type]
    assert store.get(["id-5"])["id-5"].tokens is None
    best = max(scores, key=scores.__getitem__)
    store.delete({"id": best})
    del scores[best]
    check()
    assert store.search_summary(query, 0) == []
    with pytest.raises(InputError, match="no token vectors"):
        store.upsert([Record("bare", GOOD)])
    with pytest.raises(InputError, match="summary"):
        store.upsert([Record("odd", GOOD, tokens=b"x", summary=np.ones(7, np.float32))])
    store.upsert([])


def test_a_store_without_tokens_says_so(store: VectorStore) -> None:
    with pytest.raises(InputError, match="keeps no token vectors"):
        store.search_summary(GOOD, 3)

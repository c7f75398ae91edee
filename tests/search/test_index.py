"""The index over a model made of hashes: items, queries, filters, updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hash_model import HashModel

from mmembed.errors import IndexMismatchError, InputError
from mmembed.search.index import Index
from mmembed.search.store import StoreLockedError

TEXTS = [
    "a red bicycle in the snow",
    "two dogs play in the snow",
    "a green car",
    "the history of bicycles and cars",
]


@pytest.fixture
def model() -> HashModel:
    return HashModel()


@pytest.fixture
def index(tmp_path: Path, model: HashModel) -> Iterator[Index]:
    with Index.open(tmp_path / "index", model) as opened:
        yield opened


def texts(hits: list) -> list[str]:
    return [hit.text for hit in hits]


def test_an_empty_index_answers(index: Index) -> None:
    assert index.search("dog") == []
    assert len(index) == 0
    assert index.stats().items == 0
    assert index.delete(["x"]) == 0
    assert index.update({"a": 1}, ids="x") == 0
    index.optimize()
    assert not index.path.exists()
    assert index.add([]).written == 0
    assert index.search("dog") == []


def test_add_and_search_texts(index: Index) -> None:
    report = index.add(TEXTS)
    assert (report.added, report.skipped) == (4, [])
    hits = index.search("red bicycle", k=2)
    assert hits[0].text == TEXTS[0]
    assert hits[0].modality == "text"
    assert hits[0].uri is None
    assert set(hits[0].scores) == {"dense", "text", "rrf"}
    assert hits[0].score == hits[0].scores["rrf"] == pytest.approx(2 / 61)


def test_a_plain_str_query_is_text_even_if_such_a_file_exists(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dog.jpg").write_bytes(b"jpeg bytes")
    index.add([Path("dog.jpg"), "dog.jpg", "cat"])
    assert index.search("dog.jpg", 1, mode="dense")[0].modality == "text"
    assert index.search(Path("dog.jpg"), 1)[0].modality == "image"
    assert index.search({"image": "dog.jpg"}, 1)[0].modality == "image"
    assert index.search(b"jpeg bytes", 1)[0].modality == "image"


def test_modes_and_scores(index: Index) -> None:
    index.add(TEXTS)
    dense = index.search("two dogs play in the snow", 4, mode="dense")
    assert dense[0].scores == {"dense": pytest.approx(1.0, abs=1e-4)}
    assert [hit.score for hit in dense] == sorted((hit.score for hit in dense), reverse=True)
    words = index.search("snow", 4, mode="text")
    assert {hit.text for hit in words} == set(TEXTS[:2])
    assert all(hit.score == hit.scores["text"] > 0 for hit in words)
    with pytest.raises(InputError, match="mode"):
        index.search("snow", mode="fuzzy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no text"):
        index.search(b"bytes", mode="text")


def test_min_score_is_a_similarity_in_hybrid_mode_too(index: Index) -> None:
    index.add(TEXTS)
    every = index.search("snow", 4)
    assert len(every) == 4
    close = index.search("snow", 4, min_score=0.2)
    assert 0 < len(close) < 4
    assert close == [hit for hit in every if hit.scores["dense"] >= 0.2]
    assert index.search("snow", 4, mode="text", min_score=1e6) == []
    assert index.search("snow", 4, mode="dense", min_score=1.1) == []


def test_what_only_the_words_found_has_its_similarity(index: Index) -> None:
    near = [f"alpha beta {i}" for i in range(60)]
    index.add([*near, "gamma alpha beta beta " + " ".join(f"w{i}" for i in range(200))])
    hit = index.search("alpha beta gamma", 1, filter="text like '*w199'")[0]
    all_hits = {each.id: each for each in index.search("alpha beta gamma", 50)}
    assert all_hits[hit.id].scores["dense"] == pytest.approx(hit.scores["dense"], abs=1e-5)


def test_items_without_ids_are_known_by_their_content(index: Index, model: HashModel) -> None:
    first = index.add([*TEXTS, TEXTS[0]])
    assert (first.added, first.unchanged) == (4, 1)
    model.encoded.clear()
    again = index.add([*TEXTS, "something new"])
    assert (again.added, again.unchanged, again.updated) == (1, 4, 0)
    assert len(model.encoded) == 1
    assert len(index) == 5


def test_ids_update(index: Index, model: HashModel) -> None:
    index.add(["one", "two"], ids=["a", "b"], metadata=[{"year": 1}, {"year": 2}])
    report = index.add(["one", "deux", "trois"], ids=["a", "b", "c"])
    assert (report.unchanged, report.updated, report.added) == (1, 1, 1)
    hit = index.search("deux", 1)[0]
    assert (hit.id, hit.text, hit.metadata) == ("b", "deux", {"year": 2})
    assert index.add(["one"], ids=["a"], metadata=[{"year": 9}]).updated == 1
    assert index.search("one", 1)[0].metadata == {"year": 9}
    assert len(index) == 3


def test_one_id_with_two_items_is_an_error_of_the_second(index: Index) -> None:
    report = index.add(["one", "two"], ids=["a", "a"])
    assert report.added == 1
    assert "twice" in str(report.skipped[0])
    assert report.skipped[0].position == 1
    assert index.search("x", 5, mode="dense")[0].text == "one"


def test_a_single_item_needs_no_list(index: Index) -> None:
    assert index.add({"text": "winter walk"}).added == 1
    assert index.add(b"\x89PNG bytes").added == 1
    assert index.add(text for text in ["lazy", "iterables"]).added == 2
    assert {hit.modality for hit in index.search("x", 9)} == {"text", "image"}


def test_fused_items_keep_text_and_path(index: Index, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"pixels")
    index.add([{"image": str(image), "text": "winter walk"}], metadata={"tags": ["snow"]})
    hit = index.search("winter", 1, mode="text")[0]
    assert (hit.uri, hit.modality, hit.metadata) == (str(image), "image", {"tags": ["snow"]})


def test_bad_items_are_skipped_and_listed(index: Index, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"BAD")
    values = ["good", tmp_path / "missing.jpg", broken, 3.5, {"txt": "x"}, "\udcff", "fine"]
    report = index.add(values)
    assert report.added == 2
    assert [error.position for error in report.skipped] == [1, 2, 3, 4, 5]
    assert {"good", "fine"} == {hit.text for hit in index.search("good", 9)}


def test_on_error_raise_keeps_what_came_before(index: Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.jpg"):
        index.add([*TEXTS, tmp_path / "missing.jpg"], on_error="raise")
    assert len(index) == 4


def test_metadata_becomes_typed_fields(index: Index) -> None:
    metadata = [
        {"year": 2019, "lang": "en", "rating": 4.5, "public": True, "tags": ["a", "b"]},
        {"year": np.int64(2020), "lang": "de"},
        {"year": 2021, "lang": None},
        None,
    ]
    assert index.add(TEXTS, metadata=metadata).skipped == []
    found = index.search("x", 9, filter="year >= 2020", mode="dense")
    assert set(texts(found)) == set(TEXTS[1:3])
    assert found[0].metadata["year"] in (2020, 2021)
    assert texts(index.search("snow", 9, filter={"tags": {"contains": "b"}})) == [TEXTS[0]]
    assert len(index.search("x", 9, filter="lang != 'en'")) == 3
    with pytest.raises(InputError, match="did you mean 'year'"):
        index.search("x", filter="yeer > 3")
    report = index.add(["more"], metadata={"year": "2022"})
    assert report.added == 0
    assert "int" in str(report.skipped[0])


@pytest.mark.parametrize(
    "bad", [{"path": "x"}, {"a b": 1}, {"text": "x"}, {"deep": {"er": 1}}, {"x": [1, 2]}, ["year"]]
)
def test_bad_metadata_is_reported(index: Index, bad: object) -> None:
    report = index.add(["one"], metadata=[bad])  # type: ignore[list-item]
    assert report.added == 0
    assert len(report.skipped) == 1
    assert "metadata" in str(report.skipped[0]) or "field" in str(report.skipped[0])


def test_counts_of_ids_and_metadata_must_fit(index: Index) -> None:
    with pytest.raises(InputError, match="ids: has 1 for 2"):
        index.add(["a", "b"], ids=["x"])
    report = index.add((text for text in ["a", "b"]), ids=["x"])
    assert report.added == 1
    assert "ids" in str(report.skipped[0])


def test_filters_choose_before_the_best_k(index: Index) -> None:
    values = [f"dog number {i}" for i in range(200)]
    index.add(values, metadata=[{"rare": i == 137} for i in range(200)])
    for mode in ("dense", "text", "hybrid"):
        hits = index.search("dog number 5", 1, filter="rare == true", mode=mode)  # type: ignore[arg-type]
        assert texts(hits) == ["dog number 137"]


def test_update_metadata_embeds_nothing(index: Index, model: HashModel) -> None:
    index.add(TEXTS, ids=list("abcd"), metadata={"year": 1})
    model.encoded.clear()
    assert index.update({"seen": True, "year": None}, ids=["a", "b", "nope"]) == 2
    assert index.update({"year": 7}, filter="seen is null") == 2
    assert model.encoded == []
    assert {hit.id for hit in index.search("x", 9, filter="seen == true")} == {"a", "b"}
    assert {hit.id for hit in index.search("x", 9, filter="year == 7")} == {"c", "d"}
    with pytest.raises(InputError, match="year"):
        index.update({"year": "x"}, ids="c")
    with pytest.raises(InputError, match="ids or a filter"):
        index.update({"year": 1})


def test_delete(index: Index) -> None:
    index.add(TEXTS, ids=list("abcd"), metadata=[{"n": i} for i in range(4)])
    assert index.delete("a") == 1
    assert index.delete(filter="n >= 2") == 2
    assert [hit.id for hit in index.search("snow", 9)] == ["b"]
    with pytest.raises(InputError, match="not both"):
        index.delete("b", filter="n == 1")
    with pytest.raises(InputError, match="not both"):
        index.delete()
    assert index.add(TEXTS, ids=list("abcd")).added == 3


def test_delete_by_content_hash(index: Index) -> None:
    index.add(["same"], ids=["a"])
    index.add(["same", "other"], ids=["b", "c"])
    store = index._store
    assert store is not None
    content_hash = store.get(["a"])["a"].fields["content_hash"]
    assert index.delete(filter={"content_hash": content_hash}) == 2
    assert len(index) == 1


def test_similar(index: Index) -> None:
    index.add(TEXTS, ids=list("abcd"), metadata=[{"n": i} for i in range(4)])
    assert index.similar("a", 3)[0].id == "b"
    assert "a" not in {hit.id for hit in index.similar("a", 9)}
    assert {hit.id for hit in index.similar("a", 9, filter="n > 1")} == {"c", "d"}
    with pytest.raises(InputError, match="not in the index"):
        index.similar("nope")


def test_reopen(tmp_path: Path) -> None:
    with Index.open(tmp_path / "i", HashModel()) as index:
        index.add(TEXTS)
    index = Index.open(tmp_path / "i", HashModel(), create=False)
    assert index.search("red bicycle", 1)[0].text == TEXTS[0]
    stats = index.stats()
    assert (stats.items, stats.modalities, stats.model_name) == (4, {"text": 4}, "hash")
    assert stats.store is not None
    assert stats.store.bytes > 0


def test_another_model_is_refused(tmp_path: Path) -> None:
    Index.open(tmp_path / "i", HashModel()).add(TEXTS)
    for other in (HashModel("other", 64, "v2"), HashModel("other", 32, "v1")):
        with pytest.raises(IndexMismatchError, match=r"'hash'.*'other'.*open it with"):
            Index.open(tmp_path / "i", other)
    Index.open(tmp_path / "i")  # without a model, the recorded one is for later


def test_where_an_index_lives(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index"):
        Index.open(tmp_path / "none", HashModel(), create=False)
    assert Index.open(tmp_path / "new", HashModel()).path == tmp_path / "new"
    media = tmp_path / "media"
    media.mkdir()
    assert Index.open(media, HashModel()).path == media
    (media / "a.jpg").write_bytes(b"x")
    index = Index.open(media, HashModel())
    assert index.path == media / ".mmembed"
    index.add(["text"])
    assert Index.open(media / ".mmembed", HashModel(), create=False).path == media / ".mmembed"
    with pytest.raises(InputError, match="is a file"):
        Index.open(media / "a.jpg", HashModel())


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = Index.open(tmp_path / "i", HashModel())
    second = Index.open(tmp_path / "i", HashModel())
    first.add(["one"])

    def while_first_writes() -> Iterator[str]:
        yield "two"
        with pytest.raises(StoreLockedError, match="thread of this process"):
            second.add(["three"])
        assert len(second.search("one", 5)) == 1

    first.add(while_first_writes())
    assert second.add(["three"]).added == 1


def test_words_found_while_decoding_are_searched(tmp_path: Path) -> None:
    class PageReader(HashModel):
        def encode_stream(self, items, /, *, role):  # type: ignore[no-untyped-def]
            for encoded in super().encode_stream(items, role=role):
                yield replace(encoded, text=f"layer {encoded.position}")

    index = Index.open(tmp_path / "i", PageReader())
    index.add([b"page one", {"image": b"page two", "text": "caption"}])
    hits = index.search("layer", 5, mode="text")
    assert {hit.text for hit in hits} == {"layer 0", "caption\nlayer 1"}
    assert index.search("caption", 1, mode="text")[0].text == "caption\nlayer 1"


def test_long_texts_are_kept_in_part(index: Index) -> None:
    index.add(["word " * 10_000])
    assert len(index.search("word", 1)[0].text) == 8192


def test_a_query_that_is_not_unicode_is_refused(index: Index) -> None:
    index.add(TEXTS)
    with pytest.raises(InputError, match="Unicode"):
        index.search("\udcff")


def test_progress_hears_of_every_item(index: Index) -> None:
    heard: list[int] = []
    index.add(TEXTS, progress=lambda report: heard.append(report.added))
    assert heard[-1] == 4
    assert len(heard) >= 4


def test_a_path_that_does_not_exist_is_no_empty_folder(index: Index) -> None:
    with pytest.raises(InputError, match="put it in a list"):
        index.add("a text by mistake")

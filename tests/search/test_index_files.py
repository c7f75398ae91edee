"""Mirroring folders: only what changed is embedded, and the index follows the files."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hash_model import HashModel

from mmembed.search.index import Index


@pytest.fixture
def model() -> HashModel:
    return HashModel()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    for name in ("a.jpg", "b.png", "holiday/c.jpg", "holiday/clip.mp4", "ünï.jpg"):
        write(root / name, name.encode())
    write(root / "notes.txt", passages(3))
    return root


@pytest.fixture
def index(media: Path, model: HashModel) -> Index:
    return Index.open(media, model)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def passages(n: int) -> bytes:
    """A text file of ``n`` passages: paragraphs as long as a passage may be."""
    return "\n\n".join(f"passage{i} " + "filler " * 199 for i in range(n)).encode()


def all_ids(index: Index) -> set[str]:
    assert index._store is not None
    found = [record.id for record in index._store.scan()]
    assert len(found) == len(set(found))
    return set(found)


WHOLE = {
    "a.jpg",
    "b.png",
    "holiday/c.jpg",
    "holiday/clip.mp4",
    "ünï.jpg",
    "notes.txt#p=1",
    "notes.txt#p=2",
    "notes.txt#p=3",
}


def test_a_folder_is_indexed_once(index: Index, media: Path, model: HashModel) -> None:
    report = index.add(media)
    assert (report.added, report.skipped) == (8, [])
    assert all_ids(index) == WHOLE
    model.encoded.clear()
    report = index.add(str(media))
    assert (report.added, report.updated, report.unchanged, report.deleted) == (0, 0, 8, 0)
    assert model.encoded == []
    hit = index.search(media / "holiday" / "c.jpg", 1)[0]
    assert hit.uri == str(media / "holiday" / "c.jpg")
    assert hit.score == pytest.approx(1.0, abs=1e-4)
    found = index.search("x", 9, filter="path like 'holiday/*'")
    assert {hit.id for hit in found} == {"holiday/c.jpg", "holiday/clip.mp4"}
    passage = index.search("passage1", 1, mode="text")[0]
    assert passage.uri == f"{media / 'notes.txt'}#p=2"


def test_only_what_changed_is_embedded(index: Index, media: Path, model: HashModel) -> None:
    index.add(media)
    model.encoded.clear()
    write(media / "a.jpg", b"other content")
    write(media / "new.jpg", b"new")
    (media / "b.png").unlink()
    report = index.add(media)
    assert (report.added, report.updated, report.unchanged, report.deleted) == (1, 1, 6, 1)
    assert sorted(model.encoded) == [str(media / "a.jpg"), str(media / "new.jpg")]
    assert all_ids(index) == (WHOLE | {"new.jpg"}) - {"b.png"}
    assert index.search(media / "a.jpg", 1)[0].id == "a.jpg"


def test_a_new_time_alone_embeds_nothing(index: Index, media: Path, model: HashModel) -> None:
    index.add(media)
    model.encoded.clear()
    os.utime(media / "a.jpg", ns=(1, 1))
    os.utime(media / "notes.txt", ns=(1, 1))
    for _ in range(2):
        report = index.add(media)
        assert (report.added, report.updated, report.unchanged, report.deleted) == (0, 0, 8, 0)
    assert model.encoded == []
    assert index._store is not None
    assert index._store.get(["a.jpg"])["a.jpg"].fields["mtime_ns"] == 1


def test_the_same_content_is_embedded_once_and_found_twice(
    index: Index, media: Path, model: HashModel
) -> None:
    write(media / "copy/a.jpg", b"a.jpg")
    write(media / "copy/notes.txt", passages(3))
    report = index.add(media)
    assert (report.added, len(model.encoded)) == (12, 8)
    hits = index.search(media / "a.jpg", 2)
    assert {hit.id for hit in hits} == {"a.jpg", "copy/a.jpg"}
    assert hits[0].score == pytest.approx(hits[1].score)
    write(media / "later.jpg", b"a.jpg")
    report = index.add(media)
    assert (report.added, len(model.encoded)) == (1, 8)
    assert index.add(media).unchanged == 13


def test_moved_files_are_not_embedded_again(index: Index, media: Path, model: HashModel) -> None:
    index.add(media)
    model.encoded.clear()
    (media / "holiday").rename(media / "trip")
    report = index.add(media)
    assert (report.added, report.deleted, model.encoded) == (2, 2, [])
    assert "trip/clip.mp4" in all_ids(index)


def test_contents_that_change_places(index: Index, media: Path) -> None:
    index.add(media)
    write(media / "a.jpg", b"b.png")
    write(media / "b.png", b"a.jpg")
    report = index.add(media)
    assert (report.updated, report.unchanged) == (2, 6)
    assert index.search(b"a.jpg", 1)[0].id == "b.png"
    assert index.search(b"b.png", 1)[0].id == "a.jpg"


def test_a_document_that_shrinks_and_grows(index: Index, media: Path) -> None:
    index.add(media)
    write(media / "notes.txt", passages(2))
    report = index.add(media)
    assert (report.updated, report.deleted) == (2, 1)
    assert all_ids(index) == WHOLE - {"notes.txt#p=3"}
    write(media / "notes.txt", passages(4))
    report = index.add(media)
    assert (report.updated, report.added, report.deleted) == (2, 2, 0)
    assert index.add(media).unchanged == 9


def test_only_below_the_root_is_anything_deleted(index: Index, media: Path) -> None:
    index.add(media)
    index.add(["a text of its own"])
    (media / "a.jpg").unlink()
    (media / "holiday/c.jpg").unlink()
    assert index.add(media / "holiday").deleted == 1
    assert "a.jpg" in all_ids(index)
    assert index.add(media).deleted == 1
    assert len(index) == 7  # six of files, and the text


def test_a_file_alone(index: Index, media: Path) -> None:
    assert index.add(media / "a.jpg").added == 1
    assert index.add([media / "b.png"]).added == 1  # as an item, it is the same as the file
    report = index.add(media)
    assert (report.added, report.unchanged) == (6, 2)


def test_unreadable_folders_keep_their_items(
    index: Index, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(media)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "holiday":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index.add(media)
    assert report.deleted == 0
    assert ["holiday" in str(error) for error in report.skipped] == [True]
    assert all_ids(index) == WHOLE


def test_bad_files_are_skipped_and_tried_again(index: Index, media: Path, model: HashModel) -> None:
    write(media / "broken.jpg", b"BAD")
    write(media / "empty.jpg", b"")
    write(media / "copy.jpg", b"BAD")
    report = index.add(media)
    assert report.added == 8
    names = {Path(error.source).name for error in report.skipped}
    assert names == {"broken.jpg", "empty.jpg", "copy.jpg"}
    write(media / "broken.jpg", b"mended")
    report = index.add(media)
    assert (report.added, report.unchanged) == (1, 8)
    write(media / "a.jpg", b"BAD now")
    report = index.add(media)
    assert report.deleted == 1  # what the index held is not in the file any more
    assert "a.jpg" not in all_ids(index)


def test_names_that_are_not_unicode_are_skipped(index: Index, media: Path) -> None:
    try:
        write(media / "bad\udcff.jpg", b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    report = index.add(media)
    assert report.added == 8
    assert "Unicode" in str(report.skipped[0])


def test_metadata_of_files(index: Index, media: Path, model: HashModel) -> None:
    index.add(media, metadata={"owner": "ada"})
    model.encoded.clear()
    assert index.add(media, metadata={"owner": "ada"}).unchanged == 8
    report = index.add(media, metadata=lambda path: {"owner": path.suffix})
    assert (report.updated, report.unchanged) == (8, 0)
    assert model.encoded == []
    assert {hit.id for hit in index.search("x", 9, filter="owner == '.png'")} == {"b.png"}
    write(media / "b.png", b"changed, and keeps its metadata")
    os.utime(media / "a.jpg", ns=(1, 1))
    index.add(media)
    assert {hit.id for hit in index.search("x", 9, filter="owner == '.png'")} == {"b.png"}
    assert index.search("x", 9, filter={"id": "a.jpg"})[0].metadata == {"owner": ".jpg"}


def test_the_folder_may_move(index: Index, media: Path, model: HashModel, tmp_path: Path) -> None:
    index.add(media)
    model.encoded.clear()
    moved = media.rename(tmp_path / "moved")
    again = Index.open(moved, model)
    assert again.search(b"a.jpg", 1)[0].uri == str(moved / "a.jpg")
    assert again.add(moved).unchanged == 8
    assert model.encoded == []


def test_files_outside_the_folder_go_by_absolute_path(
    index: Index, media: Path, tmp_path: Path
) -> None:
    write(tmp_path / "elsewhere/z.jpg", b"z")
    index.add(media)
    index.add(tmp_path / "elsewhere")
    assert all_ids(index) == WHOLE | {f"{tmp_path}/elsewhere/z.jpg"}
    assert index.search(b"z", 1)[0].uri == str(tmp_path / "elsewhere/z.jpg")


def test_a_killed_run_is_completed(index: Index, media: Path, model: HashModel) -> None:
    """Rows of half a document, as a killed run leaves them, are told from a whole one."""
    index.add(media)
    assert index._store is not None
    for lost in ("notes.txt#p=3", "notes.txt#p=1"):
        index.delete(lost)
        model.encoded.clear()
        report = index.add(media)
        assert (report.added, report.unchanged) == (1, 7)
        assert model.encoded == [f"{media}/{lost}"]
        assert all_ids(index) == WHOLE


@pytest.mark.parametrize("seed", range(4))
def test_following_any_changes_equals_starting_afresh(tmp_path: Path, seed: int) -> None:
    """Few names and few contents, so that copies, swaps, moves and growing files all happen."""
    rng = random.Random(seed)
    media = tmp_path / "media"
    media.mkdir()
    (media / "keep.jpg").write_bytes(b"never changes")
    names = [f"{top}{name}" for top in ("", "x/", "y/") for name in ("a.jpg", "b.jpg", "c.txt")]
    index = Index.open(media, HashModel())
    for step in range(15):
        for name in rng.sample(names, 3):
            path = media / name
            action = rng.choice(("write", "write", "delete", "touch", "move"))
            if action == "write":
                number = rng.randint(1, 3)
                write(path, passages(number) if path.suffix == ".txt" else b"%d" % number)
            elif path.exists() and action == "delete":
                path.unlink()
            elif path.exists() and action == "touch":
                os.utime(path, ns=(step, step))
            elif path.exists():
                target = media / rng.choice([n for n in names if n.endswith(path.suffix)])
                target.parent.mkdir(exist_ok=True)
                path.rename(target)
        report = index.add(media)
        fresh = Index.open(tmp_path / f"fresh{step}", HashModel())
        total = fresh.add(media).added
        assert (report.skipped, len(index)) == ([], total)
        assert contents(index) == contents(fresh)
        assert index.add(media).unchanged == total


def contents(index: Index) -> dict[str, tuple[bytes, str, object]]:
    """Vector, text and time of each item, by its absolute path."""
    assert index._store is not None
    return {
        index._location.path_of(record.id): (
            record.vector.tobytes() if record.vector is not None else b"",
            record.text,
            record.fields["mtime_ns"],
        )
        for record in index._store.scan(vectors=True)
    }

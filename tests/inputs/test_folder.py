"""Folders: every medium found once, in order, and no bad entry ends the walk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmembed.errors import InputError
from mmembed.inputs import folder
from mmembed.inputs.folder import SourceFile, items_of, scan, walk
from mmembed.inputs.items import DocumentPart, ImagePart, TextPart, VideoPart


@pytest.fixture
def errors() -> list[InputError]:
    return []


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")


def _names(root: Path, found: Any) -> list[str]:
    return [source.path.relative_to(root).as_posix() for source in found]


def test_media_and_text_in_a_fixed_order(tmp_path: Path) -> None:
    _touch(tmp_path, "b.png", "A.JPG", "z/a.mp4", "c/d/e.pdf", "c/b.md", "c.txt", "c/a.webm")
    _touch(tmp_path, "notes.docx", "code.py", "noext", ".hidden.png", ".git/a.png", "c/.x/a.txt")
    expected = ["A.JPG", "b.png", "c.txt", "c/a.webm", "c/b.md", "c/d/e.pdf", "z/a.mp4"]
    assert _names(tmp_path, scan(tmp_path)) == expected
    assert _names(tmp_path, scan([str(tmp_path)])) == expected


def test_record_tells_when_a_file_changes(tmp_path: Path) -> None:
    _touch(tmp_path, "a.txt")
    (before,) = scan(tmp_path)
    status = (tmp_path / "a.txt").stat()
    assert (before.size, before.mtime_ns) == (5, status.st_mtime_ns)
    assert before.path.is_absolute()
    (again,) = scan(tmp_path)
    assert again == before
    assert again.content_hash == before.content_hash
    assert len(before.content_hash) == 32
    (tmp_path / "a.txt").write_text("other")
    os.utime(tmp_path / "a.txt", ns=(0, before.mtime_ns + 1))
    (after,) = scan(tmp_path)
    assert after != before
    assert after.content_hash != before.content_hash


def test_hash_is_not_computed_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a.txt", "b.png")

    def refuse(*args: Any) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(folder, "file_digest", refuse)
    assert len(list(scan(tmp_path))) == 2


def test_hash_of_a_file_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        _ = SourceFile(tmp_path / "gone.png", 1, 1).content_hash


def test_named_paths(tmp_path: Path, errors: list[InputError]) -> None:
    _touch(tmp_path, ".hidden.png", "b.png", "a.docx", "sub/c.txt", "sub/.h/d.txt")
    named = [tmp_path / "b.png", tmp_path / ".hidden.png", tmp_path / "sub" / ".h"]
    assert _names(tmp_path, scan(named)) == ["b.png", ".hidden.png", "sub/.h/d.txt"]
    bad = [tmp_path / "a.docx", tmp_path / "none", "nul\0", tmp_path / "b.png"]
    assert _names(tmp_path, scan(bad, on_error=errors.append)) == ["b.png"]
    assert [error.reason.split(":")[0] for error in errors] == [
        "has an unknown suffix '.docx'",
        "does not exist",
        "cannot be read",
    ]
    assert errors[0].source == str(tmp_path / "a.docx")


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "pictures/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "pictures")
    expected = [tmp_path / "pictures" / "a.png"]
    for given in ("~/pictures", ".", "../pictures", "a.png"):
        assert [source.path for source in scan(given)] == expected


def test_overlapping_roots_give_a_folder_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a/b/c.png", "a/d.png")
    assert _names(tmp_path, scan([tmp_path, tmp_path / "a", tmp_path / "a/b"])) == [
        "a/d.png",
        "a/b/c.png",
    ]


def test_links_are_followed_only_if_asked(tmp_path: Path) -> None:
    _touch(tmp_path, "real/a.png", "outside/b.png")
    root = tmp_path / "real"
    (root / "file.png").symlink_to(tmp_path / "outside" / "b.png")
    (root / "linked").symlink_to(tmp_path / "outside")
    assert _names(root, scan(root)) == ["a.png"]
    assert _names(root, scan(root, follow_symlinks=True)) == ["a.png", "file.png", "linked/b.png"]
    (tmp_path / "link").symlink_to(root)
    assert len(list(scan(tmp_path / "link"))) == 1


def test_symlink_loops_end(tmp_path: Path, errors: list[InputError]) -> None:
    _touch(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "ping.png").symlink_to(tmp_path / "pong.png")
    (tmp_path / "pong.png").symlink_to(tmp_path / "ping.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "none.png")
    assert _names(tmp_path, scan(tmp_path, on_error=errors.append)) == ["a/x.png", "b/y.png"]
    assert errors == []
    found = [
        source.path.name for source in scan(tmp_path, follow_symlinks=True, on_error=errors.append)
    ]
    assert sorted(found) == ["x.png", "y.png"]
    broken = {Path(error.source).name for error in errors}
    assert {"ping.png", "pong.png", "broken.png"} <= broken


def test_unreadable_folder_is_reported_and_passed_over(
    tmp_path: Path, errors: list[InputError], monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, "a/x.png", "locked/y.png", "z/z.png")
    real = os.scandir

    # Permission bits do not bind root, under which tests may run.
    def scandir(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _names(tmp_path, scan(tmp_path, on_error=errors.append)) == ["a/x.png", "z/z.png"]
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'locked'}: cannot be read: Permission denied"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_locked_folder(tmp_path: Path, errors: list[InputError]) -> None:
    _touch(tmp_path, "a/x.png", "locked/y.png")
    (tmp_path / "locked").chmod(0)
    try:
        assert _names(tmp_path, scan(tmp_path, on_error=errors.append)) == ["a/x.png"]
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert "Permission denied" in str(errors[0])


def test_errors_are_logged_without_a_callback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(scan(tmp_path / "none")) == []
    assert "does not exist" in caplog.text


def test_pipes_and_folders_named_like_media(tmp_path: Path, errors: list[InputError]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    _touch(tmp_path, "folder.png/a.png")
    assert _names(tmp_path, scan(tmp_path)) == ["folder.png/a.png"]
    assert list(scan(tmp_path / "pipe.png", on_error=errors.append)) == []
    assert "not a regular file" in str(errors[0])


def test_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than Python's recursion limit."""
    depth = sys.getrecursionlimit() + 200
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.txt").write_text("words")
    assert len(list(scan(tmp_path))) == 1
    # Removed by hand, because shutil.rmtree recurses.
    Path("a.txt").unlink()
    for _ in range(depth):
        os.chdir("..")
        Path("d").rmdir()


def test_scan_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, *(f"{n:03}/a.png" for n in range(100)))
    opened: list[Any] = []
    real = os.scandir

    def scandir(path: Any) -> Any:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(list(islice(scan(tmp_path), 3))) == 3
    assert len(opened) <= 5


def test_items_of_each_kind(
    tmp_path: Path, make_pdf: Callable[..., Path], make_clip: Callable[..., Path]
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    make_clip("b.mp4", frames=2)
    make_pdf("c.pdf", ["one", "two", "three"])
    (tmp_path / "d.md").write_text("\n\n".join("word " * 150 for _ in range(2)))
    sources = {source.path.name: source for source in scan(tmp_path)}
    items = {name: list(items_of(source)) for name, source in sources.items()}
    assert [suffix for suffix, _ in items["a.png"]] == [""]
    assert items["a.png"][0][1].parts == (ImagePart(tmp_path / "a.png"),)
    assert items["b.mp4"][0][1].parts == (VideoPart(tmp_path / "b.mp4"),)
    assert [suffix for suffix, _ in items["c.pdf"]] == ["#page=1", "#page=2", "#page=3"]
    assert items["c.pdf"][2][1].parts == (DocumentPart(tmp_path / "c.pdf", 3),)
    assert [suffix for suffix, _ in items["d.md"]] == ["#p=1", "#p=2"]
    assert isinstance(items["d.md"][0][1].parts[0], TextPart)
    assert items["d.md"][1][1].label == f"{tmp_path / 'd.md'}#p=2"


def test_walk_loses_nothing_to_bad_files(
    tmp_path: Path, make_pdf: Callable[..., Path], errors: list[InputError]
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    make_pdf("c.pdf", ["secret"], password="x")
    (tmp_path / "d.pdf").write_text("not a pdf")
    (tmp_path / "e.txt").write_bytes(b"gr\xfc\xdfe")
    (tmp_path / "f.txt").write_text("good")
    found = list(walk([tmp_path, tmp_path / "none"], on_error=errors.append))
    assert [item_id for item_id, _ in found] == [f"{tmp_path}/a.png", f"{tmp_path}/f.txt#p=1"]
    assert [Path(error.source).name for error in errors] == [
        "b.png",
        "c.pdf",
        "d.pdf",
        "e.txt",
        "none",
    ]

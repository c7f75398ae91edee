"""Folders and files far bigger than others: nothing is lost, and what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from word_model import WordModel, count_tokens

from codeembed import CodeIndex
from codeembed.chunk import Chunker, Method
from codeembed.walk import DEFAULT_MAX_BYTES, Skip

MILLION = 1_000_000


def test_a_file_of_a_million_lines_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"x = 1\n" * MILLION)
    (tmp_path / "small.py").write_text("def small():\n    return 1\n")
    assert 6 * MILLION > DEFAULT_MAX_BYTES
    with CodeIndex.open(tmp_path, WordModel()) as index:
        report = index.update()
        assert (report.added, report.files) == (1, 1)
        (skipped,) = report.skipped
        assert (skipped.path, skipped.reason) == ("big.py", Skip.TOO_LARGE)
        assert skipped.detail == f"{6 * MILLION} bytes"
        assert [hit.path for hit in index.search("small", 3)] == ["small.py"]


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("".join(f"value_{i} = compute({i})\n" for i in range(20_000)), Method.TREE),
        ("def f():\n" + "".join(f"    x{i} = {i}\n" for i in range(20_000)), Method.TREE),
        (
            "".join(
                f"class C{i}:\n"
                + "".join(f"    def m{j}(self):\n        return {j}\n" for j in range(9))
                for i in range(1_000)
            ),
            Method.TREE,
        ),
        ("".join(f"{i} {i}\n" for i in range(20_000)), Method.LINES),
    ],
    ids=["statements", "one function", "classes", "text"],
)
def test_a_long_file_is_cut_whole(text: str, method: Method) -> None:
    name = "big.py" if method is Method.TREE else "big.unknown"
    found = Chunker(count_tokens, 64).chunk(text.encode(), name)
    assert found.method is method
    assert max(chunk.tokens for chunk in found.chunks) <= 64
    assert "".join("".join(chunk.text.split()) for chunk in found.chunks) == "".join(text.split())
    assert found.chunks[-1].end_line == text.count("\n")


def test_a_folder_of_many_files_is_found_whole_and_taken_up_in_many_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hundred thousand files go through the same steps, see benchmarks/code_scale.py.
    monkeypatch.setattr("codeembed.update._WRITE_FILES", 7)
    monkeypatch.setattr("codeembed.catalog._BATCH", 31)
    count = 600
    for number in range(count):
        folder = tmp_path / f"part{number % 23}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}.py").write_text(f"def function_{number}():\n    return {number}\n")
    with CodeIndex.open(tmp_path, WordModel()) as index:
        report = index.update(vectors=False, workers=1)
        assert (report.added, report.files, report.chunks) == (count, count, count)
        for number in (0, 299, count - 1):
            (hit,) = index.search(f"function_{number}", 1, mode="lexical")
            assert hit.path == f"part{number % 23}/file{number}.py"
        (tmp_path / "part3" / "file3.py").unlink()
        (tmp_path / "new.py").write_text("def brand_new():\n    return 1\n")
        report = index.update(vectors=False, workers=1)
        assert (report.added, report.removed, report.files) == (1, 1, count)
        assert index.search("brand_new", 1, mode="lexical")[0].path == "new.py"

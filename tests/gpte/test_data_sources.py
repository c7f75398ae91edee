from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of, text_hash
from mmembed.gpte.data.sources import files_of, fingerprint_of, raw_rows

ROWS: list[dict[str, Any]] = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def _examples(path: Path | str, skip: bool = False, **columns: Any) -> tuple[list[Example], Report]:
    report = Report("test")
    source = SourceConfig(str(path), **columns)
    return list(examples_of(source, report, "skip" if skip else "raise")), report


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for i, row in enumerate(ROWS):
            for name, data in (
                (f"{i:03}.query.txt", row["query"].encode()),
                (f"{i:03}.json", json.dumps({"positive": row["positive"]}).encode()),
                (f"{i:03}.jpg", b"\xff\xd8"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.parquet", "a.tar"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif name.endswith("tar"):
        _tar(path)
    else:
        pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(LINES.encode()))
    found = list(raw_rows(str(path)))
    assert [{k: row.fields[k] for k in ROWS[0]} for row in found] == ROWS
    assert [row.place.number for row in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "count"),
    [("a.jsonl", 4000), ("a.jsonl.gz", 4000), ("a.parquet", 12_000), ("a.tar", 4000)],
)
def test_no_more_than_a_block_is_in_memory(tmp_path: Path, name: str, count: int) -> None:
    """Of rows of a kilobyte, much less than a half is held at any time."""
    path = tmp_path / name
    rows = [{"query": f"{i:06}" + "x" * 1000} for i in range(count)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    elif name.endswith("tar"):
        with tarfile.open(path, "w") as archive:
            for i, line in enumerate(lines.splitlines()):
                info = tarfile.TarInfo(f"{i:06}.json")
                info.size = len(line)
                archive.addfile(info, io.BytesIO(line))
    else:
        path.write_bytes(gzip.compress(lines, 1) if name.endswith("gz") else lines)
    del lines, rows
    arrow = pa.total_allocated_bytes()
    most = number = 0
    tracemalloc.start()
    try:
        for number, _ in enumerate(raw_rows(str(path)), start=1):  # noqa: B007
            most = max(most, pa.total_allocated_bytes() - arrow)
        most += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert number == count
    assert most < 450 * count


def test_folders_and_globs_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "notes.md"):
        (tmp_path / name).write_text(LINES)
    assert [file.name for file in files_of(str(tmp_path))] == ["a.jsonl", "b.jsonl"]
    assert [file.name for file in files_of(f"{tmp_path}/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert len(list(raw_rows(f"{tmp_path}/?.jsonl"))) == 10


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    before = fingerprint_of(str(path))
    assert fingerprint_of(str(path)) == before
    path.write_text(LINES.replace("q0", "Q0"))
    assert fingerprint_of(str(path)) != before


def test_missing_unknown_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        list(raw_rows(str(tmp_path / "absent.jsonl")))
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(InputError, match="of no known kind"):
        list(raw_rows(str(tmp_path / "a.csv")))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(LINES.encode() * 50)[:-20])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: cannot be read"):
        list(raw_rows(str(tmp_path / "cut.jsonl.gz")))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="Parquet"):
        list(raw_rows(str(tmp_path / "cut.parquet")))


BAD = [
    ("{broken", "broken JSON"),
    ("[1]", "this is a list"),
    ('{"query": "", "positive": "p"}', "'query' is empty"),
    ('{"query": " \\n", "positive": "p"}', "'query' is empty"),
    ('{"query": "q", "positive": null}', "has no 'positive'"),
    ('{"query": "q"}', "has no 'positive'"),
    ('{"query": "q", "positive": 7}', "'positive' is a int"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_rows_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + line + "\n" + LINES)
    with pytest.raises(InputError, match=message) as caught:
        _examples(path)
    assert "a.jsonl:6" in str(caught.value)
    kept, report = _examples(path, skip=True)
    assert len(kept) == report.kept == 10
    assert sum(report.problems.values()) == 1
    assert "a.jsonl:6" in report.first[0]


def test_a_report_counts_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + "".join(f"{line}\n" for line, _ in BAD))
    _, report = _examples(path, skip=True)
    assert report.problems == {"broken": 2, "empty": 2, "one-sided": 2, "not text": 1}


def test_columns_negatives_labels_and_teachers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"q": "a", "p": ["b", "x"], "n1": ["c", "d"], "n2": "e", "s": "0.5", "t": [3, 2, 1, 0]}
    path.write_text(json.dumps(row) + "\n")
    columns = {"query": "q", "positive": "p", "negatives": ("n1", "n2"), "label": "s"}
    (found,), _ = _examples(path, teacher="t", instruction="Find", **columns)
    assert found.texts == ["a", "b", "c", "d", "e"]
    assert found.label == 0.5
    assert found.teacher == (3, 2, 1, 0)
    assert found.instruction == "Find"
    with pytest.raises(ConfigError, match=r"no column 'quary' \(columns: n1"):
        _examples(path, **{**columns, "query": "quary"})
    with pytest.raises(InputError, match="must list 2 scores"):
        _examples(path, query="q", positive="p", negatives=("n2",), teacher="t")
    with pytest.raises(InputError, match="not a number"):
        _examples(path, query="q", positive="p", label="n2")


def test_the_hash_is_of_the_text_itself() -> None:
    assert text_hash(" fox\n") == text_hash("fox") != text_hash("Fox")
    assert -(2**63) <= text_hash("fox") < 2**63

"""Bulk jobs: every input form, resume after a kill, errors to one side, and collecting."""

from __future__ import annotations

import gzip
import io
import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bulk_model import DIM, BulkModel, die, load, load_other, vector_of
from bulk_rows import check, errors_in, rows_in, write_lines
from PIL import Image

from mmembed.bulk import job as job_module
from mmembed.bulk import shards as shards_module
from mmembed.bulk.collecting import into_index, into_lance
from mmembed.bulk.job import Job, Settings
from mmembed.bulk.runner import run_local, share_of
from mmembed.bulk.shards import cut
from mmembed.cli import app
from mmembed.commands.output import run
from mmembed.errors import ConfigError, IndexMismatchError, InputError, MmembedError
from mmembed.search.index import Index

WORKER = Path(__file__).with_name("bulk_worker.py")


def test_lines_are_cut_between_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "in.jsonl", 1000)
    whole = run_local(
        Job.start(tmp_path / "whole", Settings(), cut(str(tmp_path / "in.jsonl"))), load
    )
    assert (whole.shards, whole.counts.rows) == (1, 1000)
    for size in (997, 4096):
        monkeypatch.setattr(shards_module, "_JSONL_BYTES", size)
        job = Job.start(tmp_path / f"by{size}", Settings(), cut(str(tmp_path / "in.jsonl")))
        assert len(job.shards) > 5
        run_local(job, load)
        check(job, range(1000))


def test_forms_of_input(tmp_path: Path) -> None:
    data = tmp_path / "in"
    data.mkdir()
    write_lines(data / "a.jsonl", 10)
    with gzip.open(data / "b.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"id": "zip", "text": "zipped"}) + "\n")
    image = {"bytes": b"\x89PNG pixels", "path": None}
    table = pa.Table.from_pylist(
        [{"id": "p0", "text": "parquet", "image": None}, {"id": "p1", "text": None, "image": image}]
    )
    pq.write_table(table, data / "c.parquet", row_group_size=1)
    with tarfile.open(data / "d.tar", "w") as archive:
        for name, content in [
            ("x/one.jpg", b"pixels one"), ("x/one.txt", b"a caption"),
            ("x/one.json", b'{"year": 3}'), ("x/two.txt", b"words alone"), ("x/three.json", b"{"),
        ]:  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    job = Job.start(tmp_path / "out", Settings(dtype="float32"), cut(str(data)))
    state = run_local(job, load)
    assert (state.counts.rows, state.counts.errors) == (15, 1)
    found = rows_in(job)
    assert set(found) == {f"r{i}" for i in range(10)} | {
        "zip", "p0", "p1", "d.tar/x/one", "d.tar/x/two",
    }  # fmt: skip
    assert list(errors_in(job)) == ["d.tar/x/three"]
    for key, content in [("p1", b"\x89PNG pixels"), ("d.tar/x/one", b"pixels one")]:
        assert found[key]["modality"] == "image"
        np.testing.assert_allclose(found[key]["vector"], vector_of(content), atol=1e-6)
    assert json.loads(found["d.tar/x/one"]["metadata"]) == {"year": 3, "caption": "a caption"}
    by_uri = cut(f"file://{data}")
    assert [shard.kind for shard in by_uri] == [shard.kind for shard in job.shards]
    assert run_local(Job.start(tmp_path / "uri", Settings(), by_uri), load).counts.rows == 15


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_of_media(tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a.png").write_bytes(b"pixels a")
    (folder / ".hidden" / "a.png").write_bytes(b"pixels a")
    (folder / "sub" / "b.jpg").write_bytes(b"BROKEN")
    (folder / "words.txt").write_text("some words")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    pages = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green")]
    pages[0].save(folder / "two.pdf", save_all=True, append_images=pages[1:])
    job = Job.start(tmp_path / "out", Settings(), cut(f"{scheme}{folder}"))
    run_local(job, load)
    found = rows_in(job)
    assert set(found) == {"a.png", "words.txt#p=1", "two.pdf#page=1", "two.pdf#page=2"}
    assert found["a.png"]["path"] == str(folder / "a.png")
    np.testing.assert_allclose(found["a.png"]["vector"], vector_of(b"pixels a"), atol=1e-3)
    assert errors_in(job) == {"sub/b.jpg": "is broken"}
    alone = Job.start(tmp_path / "alone", Settings(), cut(f"{scheme}{folder / 'a.png'}"))
    run_local(alone, load)
    assert rows_in(alone).keys() == {"a.png"}


def test_bad_rows_go_to_one_side_and_too_many_end_the_run(tmp_path: Path) -> None:
    lines = [
        "{",
        "[1]",
        '{"text": 5}',
        "{}",
        '{"id": "x", "text": "BROKEN"}',
        '{"text": "good"}',
        "",
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))
    state = run_local(job, load)
    assert (state.counts.rows, state.counts.errors) == (1, 5)
    reasons = errors_in(job)
    assert "JSON" in reasons["in.jsonl@0"]
    assert reasons["x"] == "is broken"
    with (tmp_path / "bad.jsonl").open("w") as stream:
        stream.write('{"text": "BROKEN"}\n' * 300)
    job = Job.start(
        tmp_path / "bad", Settings(max_error_rate=0.1), cut(str(tmp_path / "bad.jsonl"))
    )
    with pytest.raises(ConfigError, match="--max-error-rate"):
        run_local(job, load)
    assert not list((tmp_path / "bad" / "parts").iterdir())


def test_kills_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_JSONL_BYTES", 4000)
    write_lines(tmp_path / "in.jsonl", 2000)
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))
    rng = random.Random(0)
    done = [0]
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(job.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        time.sleep(rng.uniform(0.02, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        done.append(job.total()[0])
    assert done == sorted(done)
    kept = {file.name: file.stat().st_mtime_ns for file in (job.folder / "done").glob("[!.]*")}
    state = run_local(job, load)
    assert (state.done, state.counts.rows) == (len(job.shards), 2000)
    check(job, range(2000))
    # What was done is not done again.
    assert {n: (job.folder / "done" / n).stat().st_mtime_ns for n in kept} == kept
    before = state.counts
    assert run_local(job, die).counts == before  # nothing left: no model is loaded


def test_workers_share_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_JSONL_BYTES", 2000)
    write_lines(tmp_path / "in.jsonl", 600)
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))
    with pytest.raises(MmembedError, match="status 3"):
        run_local(job, die, workers=2)
    seen = []
    state = run_local(job, load, workers=2, progress=seen.append)
    assert (state.done, state.counts.rows) == (len(job.shards), 600)
    assert seen[-1] == state
    check(job, range(600))


def test_parts_of_a_job_array_cover_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_JSONL_BYTES", 2000)
    write_lines(tmp_path / "in.jsonl", 600)
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))
    for part in (1, 2, 3):
        run_local(job, load, mine=share_of(job.shards, part, 3))
    check(job, range(600))


def test_a_job_is_not_mixed(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    write_lines(source, 10)
    folder = tmp_path / "out"
    job = Job.start(folder, Settings(), cut(str(source)))
    with pytest.raises(ConfigError, match="other settings"):
        Job.start(folder, Settings(dtype="float32"), cut(str(source)))
    run_local(job, load)
    with pytest.raises(IndexMismatchError, match="bulk-v1"):
        into_index(job, tmp_path / "index", load_other())
    write_lines(source, 11)
    with pytest.raises(ConfigError, match="other shards"):
        Job.start(folder, Settings(), cut(str(source)))
    late = Job.start(tmp_path / "late", Settings(), cut(str(source)))
    write_lines(source, 12)
    with pytest.raises(InputError, match="has changed"):
        run_local(late, load)
    with pytest.raises(ConfigError, match="not empty"):
        Job.start(tmp_path, Settings(), late.shards)
    with pytest.raises(InputError, match="does not exist"):
        cut(str(tmp_path / "nothing"))


def test_a_full_disk_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "in.jsonl", 50)
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(job_module.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            run_local(job, load)
    assert [file for name in ("parts", "done") for file in (job.folder / name).iterdir()] == []
    run_local(job, load)
    check(job, range(50))


def test_collecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_JSONL_BYTES", 2000)
    write_lines(tmp_path / "in.jsonl", 200)
    job = Job.start(tmp_path / "out", Settings(dim=4), cut(str(tmp_path / "in.jsonl")))
    with pytest.raises(ConfigError, match="0 of"):
        into_lance(job, tmp_path / "t.lance")
    run_local(job, load)
    for _ in range(2):  # a second time changes nothing
        assert into_lance(job, tmp_path / "t.lance") == 200
        assert into_index(job, tmp_path / "index", BulkModel()).added == 200
        with Index.open(tmp_path / "index", BulkModel()) as index:
            assert len(index) == 200
            hits = index.search("text 7", 3, filter="n < 100")
    assert (hits[0].id, hits[0].metadata["n"]) == ("r7", 7)
    short = vector_of(b"text 7")[:4]
    assert hits[0].scores["dense"] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(
        rows_in(job)["r7"]["vector"], short / np.linalg.norm(short), atol=1e-3
    )
    assert DIM == 8


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "in.jsonl", 20)
    with (tmp_path / "in.jsonl").open("a") as stream:
        stream.write("{broken\n")
    command = ["bulk", str(tmp_path / "in.jsonl"), str(tmp_path / "out"), "--json"]
    assert run(app, [*command, "--into", str(tmp_path / "library")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["errors"], record["done"]) == (20, 1, 1)
    with Index.open(tmp_path / "library") as index:
        assert index.search("17", 1, mode="text")[0].id == "r17"
    assert run(app, [*command, "--shard", "3/2"]) == 2
    assert "--shard 3/2" in capsys.readouterr().err
    assert run(app, [*command, "--dim", "5"]) == 2
    assert "other settings" in capsys.readouterr().err

"""Data and media in a bucket of a server that speaks S3; `make test-full` runs this."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from bulk_model import BulkModel, load
from bulk_rows import check, rows_in, write_lines
from PIL import Image

from mmembed.bulk.collecting import into_index
from mmembed.bulk.job import Job, Settings
from mmembed.bulk.runner import run_local
from mmembed.bulk.shards import cut, located
from mmembed.search.index import Index

moto = pytest.importorskip("moto.server", reason="moto is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``{}`` stands for a place in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    yield f"s3://things/{{}}?{settings}&allow_bucket_creation=true"
    server.stop()


def put(place: str, content: bytes) -> None:
    system, path = located(place)
    system.create_dir(path.partition("/")[0])
    with system.open_output_stream(path) as stream:
        stream.write(content)


def test_rows_and_media_come_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", 100)
    put(bucket.format("data/in.jsonl"), (tmp_path / "in.jsonl").read_bytes())
    for source in ("data/in.jsonl", "data"):
        job = Job.start(tmp_path / source.replace("/", "-"), Settings(), cut(bucket.format(source)))
        assert run_local(job, load, workers=2).counts.rows == 100
        check(job, range(100))

    pages = io.BytesIO()
    Image.new("RGB", (9, 9)).save(
        pages, "PDF", save_all=True, append_images=[Image.new("L", (9, 9))]
    )
    media = {"a.png": b"pixels", "sub/b.mp4": b"frames", "two.pdf": pages.getvalue()}
    for name, content in {**media, "notes.xyz": b"of no kind"}.items():
        put(bucket.format(f"media/{name}"), content)
    job = Job.start(tmp_path / "media", Settings(), cut(bucket.format("media")))
    run_local(job, load)
    found = rows_in(job)
    assert set(found) == {"a.png", "sub/b.mp4", "two.pdf#page=1", "two.pdf#page=2"}
    assert {row["modality"] for row in found.values()} == {"image", "video", "document"}
    assert found["a.png"]["path"] == "s3://things/media/a.png"
    into_index(job, tmp_path / "index", BulkModel())
    with Index.open(tmp_path / "index", BulkModel()) as index:
        assert len(index) == 4

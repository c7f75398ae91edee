"""The mmembed command, as a shell sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmembed.cli import app
from mmembed.commands.output import run

COMMANDS = ("embed", "index", "search", "info", "doctor", "serve", "eval")


def call(*arguments: object) -> int:
    return run(app, [str(argument) for argument in arguments])


def records(text: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    shown = capsys.readouterr().out
    assert command == "doctor" or f"mmembed {command}" in shown


def test_wrong_use_is_status_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("search", "--no-such-option") == 2
    assert call("embed", "--no-such-option") == 2
    assert call("search", "dogs", tmp_path) == 2
    assert "holds no index" in capsys.readouterr().err
    assert call("index", tmp_path / "missing") == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_embed_gives_lines_or_an_array(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, samples: Path
) -> None:
    assert call("embed", "two dogs", "a cat", "--dim", "8") == 0
    found = records(capsys.readouterr().out)
    assert [record["input"] for record in found] == ["two dogs", "a cat"]
    assert np.linalg.norm(found[0]["embedding"]) == pytest.approx(1.0, abs=1e-5)
    photo = sorted((samples / "figures").glob("*.jpg"))[0]
    out = tmp_path / "vectors.npy"
    assert call("embed", "--file", photo, "--output", out) == 0
    assert np.load(out).shape == (1, 384)
    assert out.with_name("vectors.npy.names.txt").read_text().strip() == str(photo)


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """Good files beside every kind of bad one."""
    folder = tmp_path_factory.mktemp("messy") / "folder"
    (folder / "deep").mkdir(parents=True)
    for i, photo in enumerate(sorted((samples / "photos" / "groceries").glob("*.jpg"))[:3]):
        shutil.copy(photo, folder / "deep" / f"good{i}.jpg")
    shutil.copy(sorted((samples / "pages").glob("*.pdf"))[0], folder / "good.pdf")
    shutil.copy(sorted((samples / "clips" / "emoji").glob("*.mp4"))[0], folder / "good.mp4")
    photo_bytes = (folder / "deep" / "good0.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(photo_bytes[: len(photo_bytes) // 3])
    (folder / "text.png").write_text("not a picture")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:400])
    (folder / "photo.mp4").write_bytes(photo_bytes)
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("RGB", (30000, 1)).save(folder / "wide.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    return folder


def test_bad_files_are_skipped_counted_and_listed(
    messy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("index", messy, "--json") == 0
    shown = capsys.readouterr()
    (report,) = records(shown.out)
    skipped = {Path(entry["source"]).name for entry in report["skipped"]}
    bad = {"empty.jpg", "cut.jpg", "text.png", "broken.pdf", "broken.mp4", "photo.mp4"}
    assert bad | {"wide.png"} == skipped
    assert all(entry["reason"] for entry in report["skipped"])
    assert f"skipped {len(report['skipped'])}:" in shown.err
    assert report["total"] == report["added"]
    assert call("search", "groceries", messy, "-k", "50", "--mode", "dense", "--json") == 0
    found = {Path(hit["uri"]).name for hit in records(capsys.readouterr().out)}
    assert {"good0.jpg", "good1.jpg", "good2.jpg", "good.mp4", "good.pdf#page=1"} <= found
    assert "tiny.png" in found
    assert not skipped & found
    assert call("index", messy, "--json") == 0
    (again,) = records(capsys.readouterr().out)
    assert again["added"] == again["updated"] == again["deleted"] == 0


def test_search_by_image_filter_and_nothing(
    messy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("index", messy, "--quiet")
    capsys.readouterr()
    assert call("search", messy, "--image", messy / "deep" / "good1.jpg", "-k", "1", "--json") == 0
    (hit,) = records(capsys.readouterr().out)
    assert hit["uri"].endswith("deep/good1.jpg")
    assert hit["schema_version"] == 1
    condition = 'modality == "text"'
    assert call("search", "groceries", messy, "--filter", condition) == 1
    assert call("search", "groceries", messy, "--filter", "modality ==") == 2
    assert call("info", messy, "--json") == 0
    (about,) = records(capsys.readouterr().out.splitlines()[-1])
    assert about["items"] > 4


def test_info_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "mini", "--json") == 0
    (about,) = records(capsys.readouterr().out)
    assert about["dim"] == 384
    assert about["modalities"] == ["document", "image", "text", "video"]
    assert call("doctor", "--json") == 0
    checks = {record["check"]: record for record in records(capsys.readouterr().out)}
    assert checks["embedding"]["ok"]


def test_eval_says_where_it_looked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("eval", "figures") == 2
    assert "openstax_figures" in capsys.readouterr().err
    assert call("eval", "figures", "--data", tmp_path) == 2
    assert "openstax_figures" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    program = "from mmembed.cli import main; main(['embed', '-', '--dim', '4'])"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"a line\n" * 3000)
        process.stdin.close()
        errors = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert "Traceback" not in errors


def test_an_index_is_searched_with_the_model_that_made_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from mmembed.backbones.vlm.tiny import tiny_vlm

    model = tiny_vlm("qwen2_vl", tmp_path / "vlm")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("a cat on a mat", encoding="utf-8")
    where = tmp_path / "index"
    assert call("index", tmp_path / "notes", "--into", where, "--model", model) == 0
    capsys.readouterr()
    assert call("search", "cat", where, "--json") == 0
    assert "a.txt" in capsys.readouterr().out
    assert call("search", "cat", where, "--model", "mini") == 2
    assert "was made by model" in capsys.readouterr().err

"""``mmembed train``: what it shows, and that the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmembed.cli import app
from mmembed.commands.output import Output, run

ROOT = Path(__file__).parents[2]
RECIPE = "configs/recipes/text/simcse-unsupervised.yaml"


def test_a_bar_counts_the_steps_and_a_stopped_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Output, "show_progress", True)  # as on a terminal
    command = ["train", RECIPE, "size=tiny", f"output={tmp_path}"]
    assert run(app, [*command, "--stop-after", "1"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert " 1/3 " in told
    assert "loss " in told
    assert "stopped early; the same command goes on" in told
    assert run(app, command) == 0
    found = capsys.readouterr()
    told = " ".join(found.err.split())
    assert "goes on after step 1" in told
    assert " 3/3 " in told
    assert found.out.startswith(f"train: {tmp_path / 'train' / 'model'}")
    assert run(app, [*command, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_an_unknown_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    wrong = "stages.train.schedule.rate=1"
    assert run(app, ["train", RECIPE, wrong, f"output={tmp_path}"]) == 2
    assert "rate" in capsys.readouterr().err

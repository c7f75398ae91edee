"""``codeembed train`` knows the stages of code recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeembed.cli import app
from mmembed.commands.output import run

ROOT = Path(__file__).parents[3]


def test_it_shows_and_runs_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    file = "configs/recipes/code/syncobert.yaml"
    assert run(app, ["train", file, "--show"]) == 0
    assert "kind: views" in capsys.readouterr().out
    assert run(app, ["train", file, "size=tiny", f"output={tmp_path}", "-q"]) == 0
    assert (tmp_path / "train" / "model").is_dir()
    assert run(app, ["train", file, "size=huge", "-q"]) == 2

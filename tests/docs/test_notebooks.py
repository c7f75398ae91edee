"""Every notebook of the documentation is run, each in a process of its own, and stored bare."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# What each notebook must print: its point, in the order in which it makes it.
PRINTED = {
    "search-photos": [
        r"added=2\d",
        r"image +Green Bell Pepper",
        r"video +",
        r"section-a\.pdf page \d",
        r"1\.000 +image +Green Bell Pepper",
    ],
    "train-on-pairs": [
        r"nDCG@10 0\.\d+ \(0\.\d+ to 0\.\d+\)",
        r"loss \[",
        r"nDCG@10 0\.\d+ \(0\.\d+ to 0\.\d+\)",
        r"changed by [+-]0\.\d+ \([+-]0\.\d+ to [+-]0\.\d+\)",
    ],
}
RUNNER = """
import json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
"""


@pytest.fixture
def notebooks(project_root: Path) -> dict[str, Path]:
    return {file.stem: file for file in (project_root / "docs" / "notebooks").glob("*.ipynb")}


def run_cells(notebook: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the code of a notebook from top to bottom in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", RUNNER, str(notebook)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_each_notebook_has_its_expectation(notebooks: dict[str, Path]) -> None:
    assert sorted(notebooks) == sorted(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRINTED))
def test_the_notebook_runs(name: str, notebooks: dict[str, Path]) -> None:
    folder = notebooks[name].parent
    before = sorted(folder.iterdir())
    ran = run_cells(notebooks[name], folder)
    assert ran.returncode == 0, ran.stderr
    assert re.search(".*".join(PRINTED[name]), ran.stdout, re.DOTALL), ran.stdout
    assert sorted(folder.iterdir()) == before  # it writes to a temporary folder only


def test_notebooks_are_stored_without_outputs_and_paths(notebooks: dict[str, Path]) -> None:
    for file in notebooks.values():
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users)/", text) == []
        for cell in json.loads(text)["cells"]:
            if cell["cell_type"] == "code":
                assert (cell["outputs"], cell["execution_count"]) == ([], None), file.name


def test_a_cell_that_fails_fails(tmp_path: Path) -> None:
    def code(text: str) -> dict[str, Any]:
        return {"cell_type": "code", "source": [text]}

    cells = [code("x = 1"), {"cell_type": "markdown", "source": ["x ="]}, code("assert x == 1")]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert run_cells(tmp_path / "a.ipynb", tmp_path).returncode == 0
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": [*cells, code("x / 0")]}))
    ran = run_cells(tmp_path / "b.ipynb", tmp_path)
    assert ran.returncode != 0
    assert 'File "cell 3", line 1' in ran.stderr

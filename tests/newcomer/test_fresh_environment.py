"""A newcomer's whole path: clone, `make demo`, own folder, own training, serve, client.

The environment is the one that the README's command makes in a fresh clone; packages come from the
index that pip knows here. Run it with `make newcomer`; it takes minutes and gigabytes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from steps import Shell, own_folder, served, trained_on_50_pairs

pytestmark = [pytest.mark.newcomer, pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def shown(clone: Path, bare_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make demo` prints in the clone, which has made `.venv` there."""
    if shutil.which("make") is None:
        pytest.skip("no make here")
    probe = tmp_path_factory.mktemp("probe")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(probe), "openai"]
    if subprocess.run(pip, env=bare_env, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached")
    command = ["make", "demo", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=clone, env=bare_env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shell(clone: Path, shown: str, bare_env: dict[str, str]) -> Shell:
    """The console scripts of the new environment."""
    programs = clone / ".venv" / "bin"
    return Shell(lambda name: [str(programs / name)], bare_env)


def test_the_demo_finds_what_it_asks_for(shown: str) -> None:
    answers = dict(re.findall(r"^== (.*)\n((?:(?!==).*\n?)*)", shown, re.MULTILINE))
    assert len(answers) >= 5, shown
    expected = {"image to image": "groceries", "text to page": "section-a.pdf", "code": ".py"}
    for asked, wanted in expected.items():
        (answer,) = (body for title, body in answers.items() if f"{asked}:" in title)
        assert wanted in answer, shown


def test_a_folder_of_ones_own(shell: Shell, tmp_path: Path) -> None:
    own_folder(shell, tmp_path)


def test_training_serving_and_the_client_of_the_documentation(
    clone: Path, shell: Shell, tmp_path: Path
) -> None:
    """The client is the block of Python in docs/serving.md, word by word but for the address."""
    model = trained_on_50_pairs(shell, clone, tmp_path)
    shell.run(clone, "python", "-m", "pip", "install", "-q", "openai")
    (client,) = re.findall(
        r"^```python\n(.*?)^```", (clone / "docs/serving.md").read_text("utf-8"), re.M | re.S
    )
    with served(shell, model, tmp_path) as address:
        told = client.replace("http://127.0.0.1:8000", address)
        told = told.replace('"mini"', "client.models.list().data[0].id")
        last = told.rstrip().rpartition("\n")[2]
        told = told.replace(last, f"answer = {last}\nprint(len(answer.data[0].embedding))")
        assert shell.run(tmp_path, "python", "-c", told).strip() == "256"

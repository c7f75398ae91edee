"""A process of its own that gives vectors to what has none, while searches go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["start_filling"]


def start_filling(root: Path, folder: Path) -> None:
    """Start ``codeembed index`` on a folder; it ends by itself, and at once if one is at it.

    It belongs to no terminal, so that closing one does not end it.
    """
    command = [sys.executable, "-m", "codeembed.cli", "index", "--quiet", "--store", str(folder)]
    subprocess.Popen(
        [*command, "--", str(root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

"""A run that goes on does so with the data that it began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mmembed.errors import ConfigError
from mmembed.gpte.checkpoint import latest_checkpoint

__all__ = ["check_unchanged"]

_NOTE = "data.json"


def check_unchanged(folder: Path, digests: Mapping[str, str]) -> None:
    """Note the data of a stage that begins; compare where it goes on from a checkpoint.

    Args:
        folder: the stage's.
        digests: of the rows of each source, by its name.

    Raises:
        ConfigError: a source is another one than when the run began.
    """
    note = folder / _NOTE
    if latest_checkpoint(folder / "checkpoints") is None:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(dict(digests), indent=2) + "\n", encoding="utf-8")
        return
    if not note.exists():
        return
    began = json.loads(note.read_text(encoding="utf-8"))
    changed = sorted(name for name in {*began, *digests} if began.get(name) != digests.get(name))
    if changed:
        raise ConfigError(
            f"{folder}: the data of {', '.join(changed)} changed since this run began, so that it "
            "cannot go on where it was: bring back what it began with, or delete the folder to "
            "start anew"
        )

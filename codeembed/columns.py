"""Arrays beside an index, replaced as a whole and read by mapping: they only save work."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "load_columns", "save_columns"]

Arrays = Mapping[str, npt.NDArray[np.generic]]

_POINTER = "columns"


def save_columns(folder: Path, arrays: Arrays) -> None:
    """Write arrays so that readers see the old ones or the new ones, never a mixture."""
    name = f"columns-{uuid.uuid4().hex[:12]}"
    target = folder / name
    target.mkdir()
    for key, array in arrays.items():
        np.save(target / f"{key}.npy", array, allow_pickle=False)
    partial = folder / f"{_POINTER}.partial"
    partial.write_text(name, "utf-8")
    partial.replace(folder / _POINTER)
    for old in folder.glob("columns-*"):
        if old.name != name:
            # A reader that mapped these files keeps what it mapped.
            shutil.rmtree(old, ignore_errors=True)


def load_columns(folder: Path) -> dict[str, npt.NDArray[np.generic]] | None:
    """The arrays, mapped from their files; None where there are none that can be read."""
    with suppress(OSError, ValueError, EOFError):
        name = (folder / _POINTER).read_text("utf-8")
        if not name.startswith("columns-") or "/" in name:
            return None
        files = sorted((folder / name).glob("*.npy"))
        return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
    return None

"""Model families: one thin adapter each, loaded by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmembed.backbones.base import Backbone

__all__ = ["load_backbone", "model_folder"]

_MODELS = Path(__file__).resolve().parents[1] / "models"


def model_folder(name: str | Path) -> Path | None:
    """The folder of a packaged model or of a local one; None for a name that is neither.

    A packaged name wins over a folder of the same name in the working directory: write ``./mini``
    for that.
    """
    packaged = _MODELS / str(name)
    if isinstance(name, str) and name.isidentifier() and packaged.is_dir():
        return packaged
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def load_backbone(name: str | Path) -> Backbone:
    """Load a packaged model (``"mini"``) or a folder, on the CPU, in evaluation mode.

    Raises:
        ModelLoadError: there is no such model, or it is incomplete; names what is missing.
    """
    from mmembed.backbones.composed_loading import load_composed
    from mmembed.errors import ModelLoadError

    folder = model_folder(name)
    if folder is None:
        packaged = ", ".join(sorted(p.name for p in _MODELS.iterdir() if p.is_dir()))
        raise ModelLoadError(f"{str(name)!r} is neither a packaged model ({packaged}) nor a folder")
    return load_composed(folder)

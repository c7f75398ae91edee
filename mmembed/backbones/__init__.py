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
    """Load a packaged model (``"mini"``), a folder, or a Hugging Face id, for inference on the CPU.

    A folder holds a composed model, a text encoder of :mod:`mmembed.gpte`, a sentence-transformers
    model, or a plain transformers model.

    Raises:
        ModelLoadError: there is no such model, or it is incomplete; names what is missing.
    """
    from mmembed.backbones.composed_loading import is_composed, load_composed
    from mmembed.backbones.text import TextBackbone
    from mmembed.gpte.text_loading import load_text_encoder

    folder = model_folder(name)
    if folder is not None and is_composed(folder):
        return load_composed(folder)
    return TextBackbone(load_text_encoder(folder or name)).eval()

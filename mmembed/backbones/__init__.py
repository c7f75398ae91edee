"""Model families: one thin adapter each, loaded by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mmembed.backbones.base import Backbone

__all__ = ["fetched_folder", "load_backbone", "model_folder"]

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


def fetched_folder(name: str | Path) -> Path | None:
    """The folder of a model, taken from the hub where there is none here; None for open_clip's.

    Raises:
        ModelLoadError: there is no such model.
    """
    from mmembed.backbones.towers.open_clip_towers import OPEN_CLIP
    from mmembed.gpte.text_loading import hub_folder

    if isinstance(name, str) and name.startswith(OPEN_CLIP):
        return None
    return model_folder(name) or hub_folder(name)


def load_backbone(name: str | Path, *, dtype: torch.dtype | None = None) -> Backbone:
    """Load a packaged model (``"mini"``), a folder, or a Hugging Face id, for inference on the CPU.

    ``"open_clip:NAME"`` and ``"open_clip:NAME@TAG"`` are models of open_clip. A folder holds a
    composed model, a vision-language model or two towers of transformers, a text encoder of
    :mod:`mmembed.gpte`, a sentence-transformers model, or a plain transformers model.

    Args:
        dtype: type of the weights; float32 by default.

    Raises:
        ModelLoadError: there is no such model, or it is incomplete; names what is missing.
    """
    import torch

    from mmembed.backbones.composed_loading import is_composed, load_composed
    from mmembed.backbones.text import TextBackbone
    from mmembed.backbones.towers.loading import load_towers, tower_family_of
    from mmembed.backbones.towers.open_clip_towers import CONFIG_NAME, OPEN_CLIP, OpenClipTowers
    from mmembed.backbones.vlm.loading import family_of, load_vision_language
    from mmembed.backbones.weights import read_json
    from mmembed.gpte.text_loading import load_text_encoder

    folder = fetched_folder(name)
    if folder is None:
        return OpenClipTowers.from_name(str(name).removeprefix(OPEN_CLIP), dtype=dtype)
    dtype = dtype or torch.float32
    if is_composed(folder):
        return load_composed(folder).to(dtype)
    if (folder / CONFIG_NAME).exists():
        return OpenClipTowers.from_folder(folder, dtype=dtype)
    config = folder / "config.json"
    described = read_json(config) if config.exists() else {}
    if family_of(described) is not None:
        return load_vision_language(folder, dtype=dtype)
    if tower_family_of(described) is not None:
        return load_towers(folder, dtype=dtype)
    return TextBackbone(load_text_encoder(folder, dtype=dtype)).eval()

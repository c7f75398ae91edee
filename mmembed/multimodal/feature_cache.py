"""Features of a frozen vision tower, kept on disk so that an epoch costs no vision forward."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.image import decode_image
from mmembed.multimodal.views import VIEWS

if TYPE_CHECKING:
    from mmembed.backbones.vision import VisionTower

__all__ = ["cached_features"]

logger = logging.getLogger(__name__)

Features: TypeAlias = "np.ndarray[Any, np.dtype[np.float16]]"

_BATCH = 32
_BUDGET = MediaBudget()


@torch.inference_mode()
def cached_features(
    folder: Path, tower: VisionTower, images: Sequence[Path], view: str
) -> Features:
    """``(n, patches, channels)`` float16 features of one view of the images, mapped from disk.

    What an interrupted run had finished is not done again. The file's name is a hash of the images'
    names and sizes, the view, and the tower's weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{view}-{_key(tower, images, view)}"
    done = stem.with_suffix(".npy")
    if done.exists():
        return np.load(done, mmap_mode="r")
    part, progress = stem.with_suffix(".part"), stem.with_suffix(".json")
    start = json.loads(progress.read_text())["rows"] if progress.exists() and part.exists() else 0
    shape = (len(images), tower.patches, tower.channels)
    features = np.lib.format.open_memmap(
        part, mode="r+" if start else "w+", dtype=np.float16, shape=None if start else shape
    )
    make = VIEWS[view]
    for first in range(start, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        pixels = [tower.pixels(make(decode_image(p, _BUDGET), f"{p.name}-{view}")) for p in batch]
        found = tower(torch.stack(pixels))
        features[first : first + len(batch)] = found.to(torch.float16).numpy()
        if first // _BATCH % 16 == 15:
            features.flush()
            progress.write_text(json.dumps({"rows": first + len(batch)}))
            logger.info("%s: %d of %d images", view, first + len(batch), len(images))
    features.flush()
    del features
    part.replace(done)
    progress.unlink(missing_ok=True)
    return np.load(done, mmap_mode="r")


def _key(tower: VisionTower, images: Sequence[Path], view: str) -> str:
    digest = hashlib.sha256(f"{view} {tower.patches} {tower.channels}\n".encode())
    for path in images:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    assert isinstance(tower, torch.nn.Module)
    for key, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{key} {tensor.double().sum().item():.6e}\n".encode())
    return digest.hexdigest()[:16]

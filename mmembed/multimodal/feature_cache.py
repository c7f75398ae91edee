"""What a frozen vision tower says of an image, kept on disk so that it is computed once."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.backbones.vision import VisionTower
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.image import decode_image
from mmembed.multimodal.views import VIEWS

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["RememberedTower", "features_of"]

logger = logging.getLogger(__name__)

_BATCH = 32
_BUDGET = MediaBudget()


class RememberedTower(nn.Module):
    """A vision tower that keeps the mean of an image's patches, which is all a connector reads.

    Put in the place of a model's tower, it gives the same embeddings up to rounding. An image is
    known by its pixels, so sets may overlap and change; several processes may share a folder.

    Args:
        tower: the tower itself, frozen.
        folder: where means are kept, in a file named by the tower's weights.
    """

    def __init__(self, tower: VisionTower, folder: Path) -> None:
        super().__init__()
        self.tower = tower
        self.channels, self.patches = tower.channels, tower.patches
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"means-{_digest(tower)}.sqlite"
        with self._store() as store:
            store.execute("CREATE TABLE IF NOT EXISTS means (image BLOB PRIMARY KEY, mean BLOB)")

    def pixels(self, image: PILImage) -> Tensor:
        return self.tower.pixels(image)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """``(n, side, side, 3)`` uint8 to ``(n, 1, channels)`` float32: one patch, the mean."""
        keys = [hashlib.sha256(one.numpy().tobytes()).digest() for one in pixels]
        known: dict[bytes, bytes] = {}
        with self._store() as store:
            for key in set(keys):
                row = store.execute("SELECT mean FROM means WHERE image = ?", (key,)).fetchone()
                if row is not None:
                    known[key] = row[0]
        new = {key: i for i, key in enumerate(keys) if key not in known}
        if new:
            found = self.tower(pixels[list(new.values())]).float().mean(dim=1).numpy()
            made = {key: mean.tobytes() for key, mean in zip(new, found, strict=True)}
            with self._store() as store:
                store.executemany("INSERT OR IGNORE INTO means VALUES (?, ?)", list(made.items()))
            known |= made
        means = np.stack([np.frombuffer(known[key], dtype=np.float32) for key in keys])
        return torch.from_numpy(means)[:, None]

    def save_pretrained(self, folder: Path) -> None:
        self.tower.save_pretrained(folder)

    def _store(self) -> sqlite3.Connection:
        # A connection a call: models may be run from several threads.
        return sqlite3.connect(self._file, timeout=120)


def features_of(tower: RememberedTower, images: Sequence[Path], view: str = "full") -> Tensor:
    """``(n, 1, channels)`` float32 of one view of the images."""
    found = [torch.empty(0, 1, tower.channels)]
    make = VIEWS[view]
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        decoded = [make(decode_image(path, _BUDGET), f"{path.name}-{view}") for path in batch]
        found.append(tower(torch.stack([tower.pixels(image) for image in decoded])))
        if first // _BATCH % 16 == 15:
            logger.info("%s: %d of %d images", view, first + len(batch), len(images))
    return torch.cat(found)


def _digest(tower: VisionTower) -> str:
    digest = hashlib.sha256(f"{tower.patches} {tower.channels}\n".encode())
    assert isinstance(tower, nn.Module)
    for key, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{key} {tensor.double().sum().item():.6e}\n".encode())
    return digest.hexdigest()[:16]

"""The simple baseline of ``mini_tasks.py``: a perceptron on the vision tower's pooled features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed import Embedder
from mmembed.backbones.composed import ComposedVLM
from mmembed.inputs.decode import decode_item
from mmembed.multimodal.captioned import READERS, read_captioned
from mmembed.multimodal.feature_cache import RememberedTower, features_of

__all__ = ["Perceptron", "perceptron"]

Array = np.ndarray[Any, Any]
_BATCH = 256
_EPOCHS = 16  # the best of 4, 8, 16 and 32 on the development figures, in mini_figures.py


class Perceptron:
    """Text by MiniLM, images by one hidden layer, everything else by averages of the two."""

    def __init__(self, mini: Embedder, data: Path, cache: Path) -> None:
        backbone = mini.backbone
        assert isinstance(backbone, ComposedVLM)
        assert isinstance(backbone.vision, RememberedTower)
        self._text = mini
        self._tower = backbone.vision
        self._budget = backbone.media_budget
        self._prepare = backbone.prepare
        rows = [row for name in READERS for row in read_captioned(name, data)]
        rows = [row for row in rows if row.split != "test" and row.licence is not None]
        means = features_of(self._tower, [row.image for row in rows])[:, 0]
        self._middle, self._spread = means.mean(dim=0), means.std(dim=0) + 1e-6
        told = sorted({row.description for row in rows})
        number = {text: i for i, text in enumerate(told)}
        known = torch.from_numpy(np.asarray(mini.encode(told)))
        texts = known[[number[row.description] for row in rows]]
        self._network = perceptron(0, self._standardised(means), texts, _EPOCHS)

    def _standardised(self, means: Tensor) -> Tensor:
        return (means - self._middle) / self._spread

    def encode(self, inputs: Sequence[Any], instruction: str | None = None) -> Array:
        items = list(inputs)
        found = np.zeros((len(items), self._text.dim), dtype=np.float32)
        words = [_words(item) for item in items]
        spoken = [i for i, text in enumerate(words) if text]
        if spoken:
            texts = [words[i] for i in spoken]
            found[spoken] += self._text.encode(texts, instruction=instruction)
        for i, item in enumerate(items):
            if not isinstance(item, str):
                found[i] += self._seen(item)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    @torch.inference_mode()
    def _seen(self, item: Any) -> Array:
        [row] = self._prepare([decode_item(item, self._budget)])
        means = self._tower(row.extras["pixels"])[:, 0]
        vectors = F.normalize(self._network(self._standardised(means)), dim=1)
        return F.normalize(vectors.mean(dim=0), dim=0).numpy()


def _words(item: Any) -> str:
    if isinstance(item, str):
        return item
    return str(item.get("text", "")) if isinstance(item, Mapping) else ""


def perceptron(seed: int, images: Tensor, texts: Tensor, epochs: int) -> nn.Module:
    """Trained by symmetric InfoNCE between images ``(n, d)`` and unit texts ``(n, 384)``."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(images.shape[1], 1024), nn.GELU(), nn.Dropout(0.5), nn.Linear(1024, 384)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    target = torch.arange(_BATCH)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            picked = order[start : start + _BATCH]
            scores = F.normalize(model(images[picked]), dim=1) @ texts[picked].T / 0.05
            loss = F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()

"""A small model to run multimodal recipes with: mini's parts before anything aligned them.

The vision tower is mini's, frozen; what it says of an image is kept as a small lossless picture,
so that the trainer reads files as ever and no step waits for the tower. Between it and the first
layer of mini's text encoder stands LLaVA's connector, a perceptron of random weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from small_judge import Judge
from torch import Tensor, nn

from mmembed.backbones import composed_loading, model_folder
from mmembed.backbones.composed import ComposedSettings, ComposedVLM
from mmembed.backbones.connector import pooled_features
from mmembed.backbones.weights import load_exactly, read_json, read_safetensors
from mmembed.gpte.text_loading import load_text_encoder
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.image import decode_image
from mmembed.multimodal.config import MediaEncoderConfig
from mmembed.multimodal.encoder import MediaEncoder, start_media_encoder
from mmembed.multimodal.feature_cache import RememberedTower
from mmembed.multimodal.reranking.encoder import PairEncoder, start_pair_encoder

__all__ = ["Pictures", "small_models", "start_folder"]

CHANNELS = 2112
SIDES = (32, 44)  # times three bytes: CHANNELS numbers of two bytes
LAYERS = 1
LORA = 16
SETTINGS = ComposedSettings(max_tokens=64, max_frames=2, page_tiles=1, page_dpi=40)


class KeptTower(nn.Module):
    """Reads the pictures that :class:`Pictures` keeps."""

    channels, patches = CHANNELS, 1

    def pixels(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.convert("RGB")))

    def forward(self, pixels: Tensor) -> Tensor:
        """``(n, 32, 44, 3)`` uint8 to ``(n, 1, channels)`` float32."""
        return pixels.reshape(len(pixels), 1, -1).view(torch.float16).float()

    def save_pretrained(self, folder: Path) -> None:
        """It has no weights."""


@dataclass(frozen=True)
class ProjectorShape:
    """``groups`` is what :class:`ComposedVLM` asks of a connector: the least tokens of an image."""

    tokens: int = 4
    groups: int = 1
    width: int = 384
    hidden: int = 512


class Projector(nn.Module):
    """A perceptron from standardised features to a few visual tokens."""

    def __init__(self, shape: ProjectorShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("std", torch.ones(CHANNELS))
        self.net = nn.Sequential(
            nn.Linear(CHANNELS, shape.hidden),
            nn.GELU(),
            nn.Linear(shape.hidden, shape.tokens * shape.width),
        )

    @property
    def tokens(self) -> int:
        return self.shape.tokens

    def forward(self, features: Tensor) -> Tensor:
        """``(n, 1, channels)`` to ``(n, tokens, width)``, about as long as word embeddings."""
        scaled = (pooled_features(features) - self.mean) / self.std
        written: Tensor = self.net(scaled) * 0.2
        return written.view(-1, self.shape.tokens, self.shape.width)


class Pictures:
    """Pictures of what mini's tower says of images.

    Args:
        folder: where they are kept.
        cache: of the tower's features, as :class:`RememberedTower` keeps them.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        packaged = model_folder("mini")
        assert packaged is not None
        self._tower = RememberedTower(composed_loading.load_parts(packaged)[0], cache)

    def __call__(self, images: Sequence[Path]) -> list[Path]:
        """The picture of each image."""
        return [self._picture(image) for image in images]

    def _picture(self, image: Path) -> Path:
        picture = self.folder / f"{image.parent.parent.name}-{image.stem}.png"
        if not picture.exists():
            pixels = self._tower.pixels(decode_image(image, MediaBudget()))
            mean = self._tower(pixels[None])[0, 0].numpy().astype(np.float16)
            kept = Image.fromarray(mean.view(np.uint8).reshape(*SIDES, 3))
            kept.save(picture, compress_level=1)
        return picture


def start_folder(folder: Path, pictures: Sequence[Path], seed: int) -> Path:
    """The model that runs of this seed start from."""
    if (folder / "config.json").exists():
        return folder
    packaged = model_folder("mini")
    assert packaged is not None
    about = read_json(packaged / "config.json")["text"]
    text = load_text_encoder(composed_loading.packaged_file(about).parent)
    base: Any = text.base
    base.encoder.layer = base.encoder.layer[:LAYERS]
    base.config.num_hidden_layers = LAYERS
    torch.manual_seed(seed)
    projector = Projector(ProjectorShape())
    tower = KeptTower()
    some = torch.stack([tower.pixels(Image.open(one)) for one in pictures])
    roots = pooled_features(tower(some))
    projector.mean.copy_(roots.mean(0))
    projector.std.copy_(roots.std(0).clamp_min(1e-3))
    model = ComposedVLM(tower, projector, base, text.tokenizer, SETTINGS)  # type: ignore[arg-type]
    model.save_pretrained(str(folder))
    return folder


_load_composed = composed_loading.load_composed


def _load(folder: Path) -> ComposedVLM:
    about = read_json(folder / "config.json")
    if "channels" in about["connector"]:  # mini itself, which teaches
        mini = _load_composed(folder)
        read: Any = (KeptTower(), mini.connector, mini.text, mini.tokenizer, mini.settings)
        return ComposedVLM(*read).eval()
    projector = Projector(ProjectorShape(**about["connector"]))
    file = folder / "connector.safetensors"
    load_exactly(projector, read_safetensors(file), str(file))
    text = load_text_encoder(folder / "text")
    settings = ComposedSettings(**about["settings"])
    parts: Any = (KeptTower(), projector, text.base, text.tokenizer, settings)
    return ComposedVLM(*parts).eval()


def _judge(name: str | Path, *_: object, **__: object) -> Judge:
    return Judge.from_folder(Path(name), _load)


def _start(config: MediaEncoderConfig, weights: str | None = None) -> MediaEncoder:
    """As recipes start, and the connector learns beside whatever else does."""
    encoder = start_media_encoder(config, weights)
    module: Any = encoder.full
    module.connector.requires_grad_(True)
    return encoder


def _start_pairs(config: MediaEncoderConfig, weights: str | None = None) -> PairEncoder:
    encoder = start_pair_encoder(config, weights)
    encoder.scorer.backbone.connector.requires_grad_(True)  # type: ignore[attr-defined]
    return encoder


@contextmanager
def small_models() -> Iterator[None]:
    """Folders of composed models, and judges, are read as this module's within."""
    with ExitStack() as stack:
        for module, name, replacement in (
            ("backbones.composed_loading", "load_composed", _load),
            ("multimodal.training", "start_media_encoder", _start),
            ("multimodal.reranking.training", "start_pair_encoder", _start_pairs),
            ("multimodal.reranking.encoder", "load_scorer", _judge),
            ("reranker", "load_scorer", _judge),
        ):
            stack.enter_context(mock.patch(f"mmembed.{module}.{name}", replacement))
        yield

"""The vision half of any open_clip ViT as a vision tower."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmembed.backbones.weights import load_exactly, read_safetensors, write_tower
from mmembed.errors import MissingDependencyError, ModelLoadError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["OpenClipTower"]


class OpenClipTower(nn.Module):
    """Patch states of an open_clip model (Ilharco et al., 2021), class token left out.

    Args:
        name: a model of ``open_clip.list_models()``, e.g. ``"ViT-B-32"``.
        pretrained: a tag of open_clip, or a local file of weights; None for random values.

    Raises:
        MissingDependencyError: open_clip is not installed.
        ModelLoadError: open_clip knows no such model, or its vision half is no plain ViT.
    """

    MODEL_TYPE = "open-clip"

    def __init__(self, name: str, pretrained: str | None = None) -> None:
        super().__init__()
        try:
            import open_clip
        except ImportError as error:
            raise MissingDependencyError("An open_clip vision tower", "open-clip") from error
        try:
            model = open_clip.create_model(name, pretrained=pretrained)
        except RuntimeError as error:
            raise ModelLoadError(f"open_clip: {error}") from error
        network: Any = model.visual
        if not hasattr(network, "grid_size") or not hasattr(network, "output_tokens"):
            raise ModelLoadError(f"open_clip model {name!r}: its vision half is no plain ViT")
        network.output_tokens = True
        about = open_clip.get_model_preprocess_cfg(model)
        self.name = name
        self.network = network.eval()
        self.side = int(network.image_size[0])
        self.patches = int(network.grid_size[0] * network.grid_size[1])
        self.channels = int(network.conv1.out_channels)
        self.mean, self.std = tuple(about["mean"]), tuple(about["std"])

    def pixels(self, image: PILImage) -> Tensor:
        from mmembed.backbones.vision import squash

        return squash(image, self.side)

    def forward(self, pixels: Tensor) -> Tensor:
        dtype = self.network.conv1.weight.dtype
        scale = torch.tensor([self.mean, self.std], dtype=dtype, device=pixels.device) * 255.0
        scaled = ((pixels.to(dtype) - scale[0]) / scale[1]).permute(0, 3, 1, 2).contiguous()
        _, patches = self.network(scaled)
        tokens: Tensor = patches
        return tokens

    def save_pretrained(self, folder: Path) -> None:
        write_tower(folder, {"model_type": self.MODEL_TYPE, "name": self.name}, self.network)

    @classmethod
    def from_folder(cls, folder: Path, config: dict[str, Any]) -> OpenClipTower:
        """Load what :meth:`save_pretrained` wrote.

        Raises:
            ModelLoadError: the folder names no model, or a tensor is missing or has no place.
        """
        if "name" not in config:
            raise ModelLoadError(f"{folder / 'config.json'}: name is missing")
        tower = cls(config["name"])
        file = folder / "model.safetensors"
        load_exactly(tower.network, read_safetensors(file), str(file))
        return tower

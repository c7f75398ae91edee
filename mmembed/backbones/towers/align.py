"""ALIGN (Jia et al. 2021), as Kakao Brain published it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from mmembed.backbones.towers.model import TowerSettings
from mmembed.backbones.towers.transformers_towers import TransformersTowers

__all__ = ["Align"]


class Align(TransformersTowers):
    """A BERT beside an EfficientNet, which is the space that the text is projected into."""

    model_types = ("align",)
    architecture = "AlignModel"
    defaults = TowerSettings(max_tokens=64)  # what it was trained with

    def train(self, mode: bool = True) -> Self:
        """Train, but keep the statistics of the vision tower's batch normalisation.

        Otherwise a picture's vector would depend on its neighbours.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @property
    def scale(self) -> Mapping[str, Tensor]:
        """Of the temperature, which the checkpoint holds as it is."""
        temperature: Tensor = self.model.temperature
        return {"log_scale": -temperature.log()}

    @property
    def picture_tokens(self) -> int:
        return int((self.model.config.vision_config.image_size // 32) ** 2)

    @property
    def lora_targets(self) -> str:
        """The text tower: the vision tower is convolutions."""
        return r"model\.text_model\.encoder\..*\.(query|key|value|dense)"

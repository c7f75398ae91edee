"""CLIP (Radford et al. 2021), and its Chinese sister (Yang et al. 2022)."""

from __future__ import annotations

from mmembed.backbones.towers.model import TowerSettings
from mmembed.backbones.towers.transformers_towers import TransformersTowers

__all__ = ["ChineseClip", "Clip"]

_VIT = r"model\.vision_model\..*\.([qkv]_proj|out_proj|fc[12])"


class Clip(TransformersTowers):
    """CLIP: causal text tower, read at the end-of-text token."""

    model_types = ("clip",)
    architecture = "CLIPModel"

    @property
    def lora_targets(self) -> str:
        """Attention and feed-forward layers of both towers, not the projections into the space."""
        return rf"{_VIT}|model\.text_model\..*\.([qkv]_proj|out_proj|fc[12])"


class ChineseClip(TransformersTowers):
    """Chinese-CLIP: a BERT read at its first token, beside CLIP's vision tower."""

    model_types = ("chinese_clip",)
    architecture = "ChineseCLIPModel"
    defaults = TowerSettings(max_tokens=52)  # what it was trained with

    @property
    def lora_targets(self) -> str:
        return rf"{_VIT}|model\.text_model\.encoder\..*\.(query|key|value|dense)"

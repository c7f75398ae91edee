"""ModernVBERT (Teiletche et al. 2025): Idefics3's tiles before a bidirectional ModernBERT."""

from __future__ import annotations

from typing import ClassVar

from mmembed.backbones.vlm.idefics3 import Idefics3

__all__ = ["ModernVBert"]


class ModernVBert(Idefics3):
    """ModernVBERT, and the encoder inside ColModernVBERT."""

    model_types: ClassVar[tuple[str, ...]] = ("modernvbert",)

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the text model's blocks."""
        return r"model\.text_model\.layers\..*\.(Wqkv|Wo|Wi)"

    @property
    def _shuffle(self) -> int:
        return int(self.model.config.pixel_shuffle_factor)

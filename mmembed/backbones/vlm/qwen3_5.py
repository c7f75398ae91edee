"""Qwen3.5 (Qwen Team 2026): Qwen3-VL's eyes before layers of linear attention."""

from __future__ import annotations

from typing import ClassVar

from mmembed.backbones.vlm.qwen3_vl import Qwen3VL

__all__ = ["Qwen35"]


class Qwen35(Qwen3VL):
    """Qwen3.5; its recurrent layers read a row from its start, so rows are padded, not packed."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5",)
    packs: ClassVar = False

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the language model's blocks, those of linear attention too."""
        return (
            r"model\.language_model\..*\."
            r"([qkvo]_proj|(gate|up|down)_proj|in_proj_(qkv|z|a|b)|out_proj)"
        )

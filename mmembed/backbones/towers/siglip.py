"""SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025)."""

from __future__ import annotations

from mmembed.backbones.towers.transformers_towers import TransformersTowers

__all__ = ["Siglip", "Siglip2"]


class Siglip(TransformersTowers):
    """SigLIP, and SigLIP 2 at fixed resolution, whose configs name the same type.

    Its text tower was trained on padded text without a mask and reads the last position, so every
    text is padded to the full length.
    """

    model_types = ("siglip",)
    architecture = "SiglipModel"
    fixed_length = True

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.text_config.projection_size)

    @property
    def lora_targets(self) -> str:
        """Attention and feed-forward layers of both towers, not the pooling heads."""
        return r"model\.(text_model|vision_model)\.encoder\..*\.([qkv]_proj|out_proj|fc[12])"


class Siglip2(Siglip):
    """SigLIP 2 NaFlex: pictures keep their shape, as up to ``max_num_patches`` patches."""

    model_types = ("siglip2",)
    architecture = "Siglip2Model"

    @property
    def picture_tokens(self) -> int:
        return int(self.processor.max_num_patches)

"""BLIP (Li et al. 2022) for retrieval: contrast (ITC) and matching (ITM)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmembed.backbones.towers.matching import MatchingTowers
from mmembed.backbones.towers.model import TowerSettings

__all__ = ["Blip"]


class Blip(MatchingTowers):
    """A BERT, which cross-attends to the picture for matching, beside a ViT."""

    model_types = ("blip",)
    architecture = "BlipForImageTextRetrieval"
    defaults = TowerSettings(max_tokens=35)  # what it was trained with

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.image_text_hidden_size)

    @property
    def lora_targets(self) -> str:
        """Attention and feed-forward layers of both towers, cross-attention included."""
        return (
            r"model\.vision_model\.encoder\..*\.(qkv|projection|fc[12])"
            r"|model\.text_encoder\.encoder\..*\.(query|key|value|dense)"
        )

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask.long())
        found: Tensor = self.model.text_proj(states.last_hidden_state[:, 0])
        return found

    def image_vectors(self, media: Mapping[str, Tensor]) -> Tensor:
        states = self.model.vision_model(**media).last_hidden_state
        found: Tensor = self.model.vision_proj(states[:, :1])
        return found

    def match(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        seen = self.model.vision_model(**media).last_hidden_state
        states = self.model.text_encoder(
            input_ids=ids,
            attention_mask=mask.long(),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=ids.device),
        )
        logits = self.model.itm_head(states.last_hidden_state[:, 0]).float()
        return logits[:, 1] - logits[:, 0]

"""BLIP-2 (Li et al. 2023), first stage: a Q-Former over a ViT, for contrast and matching."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmembed.backbones.towers.matching import MatchingTowers
from mmembed.backbones.towers.model import TowerSettings

__all__ = ["Blip2"]


class Blip2(MatchingTowers):
    """Learned queries read the picture: each gives a vector, and a text is scored by the best.

    The score of the paper is MaxSim of the text's one vector over the ``multi`` output of a
    picture; the dense vector is the mean of the queries' unit vectors.
    """

    model_types = ("blip-2", "blip_2")
    architecture = "Blip2ForImageTextRetrieval"
    defaults = TowerSettings(max_tokens=32)  # what it was trained with
    left_out = ("language_model.", "language_projection.")

    @property
    def queries(self) -> int:  # type: ignore[override]
        """Vectors of one picture."""
        return int(self.model.config.num_query_tokens)

    @property
    def text_limit(self) -> int:
        return int(self.model.config.qformer_config.max_position_embeddings)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.image_text_hidden_size)

    @property
    def lora_targets(self) -> str:
        """Attention and feed-forward layers of the Q-Former; the ViT stays as it is."""
        return r"model\.qformer\.encoder\..*\.(query|key|value|dense)"

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids),
            query_length=0,
            attention_mask=mask.long(),
        )
        found: Tensor = self.model.text_projection(self._typed(states.last_hidden_state[:, 0]))
        return found

    def image_vectors(self, media: Mapping[str, Tensor]) -> Tensor:
        seen, attended = self._seen(media)
        states = self.model.qformer(
            query_embeds=self.model.query_tokens.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=attended,
        )
        found: Tensor = self.model.vision_projection(self._typed(states.last_hidden_state))
        return found

    def match(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        seen, attended = self._seen(media)
        queries = self.model.query_tokens.expand(len(seen), -1, -1)
        count = queries.shape[1]
        read = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        states = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids, query_embeds=queries),
            query_length=count,
            attention_mask=read.long(),
            encoder_hidden_states=seen,
            encoder_attention_mask=attended,
        )
        logits = self.model.itm_head(self._typed(states.last_hidden_state[:, :count])).float()
        mean = logits.mean(dim=1)
        return mean[:, 1] - mean[:, 0]

    def _seen(self, media: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States of the patches, in the Q-Former's type, and their mask."""
        states = self.model.vision_model(**media).last_hidden_state
        states = states.to(self.model.query_tokens.dtype)
        return states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device)

    def _typed(self, states: Tensor) -> Tensor:
        return states.to(self.model.itm_head.weight.dtype)

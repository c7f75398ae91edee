"""CoCa (Yu et al. 2022, arXiv:2205.01917): two towers, and a decoder that writes captions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmembed.backbones.towers.open_clip_towers import OpenClipTowers

__all__ = ["CocaTowers"]


class CocaTowers(OpenClipTowers):
    """open_clip's CoCa: as an embedder its towers, as a reranker its decoder."""

    def match(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """``(n,)`` float32 mean log-likelihood of the tokens of text ``i`` given picture ``i``.

        The first token is given, and padding is not asked for. Minus their mean is the captioning
        loss of the paper, every caption counting alike.
        """
        found = self.model(media["image"], ids)
        labels = found["labels"]
        asked = labels != self.pad_id
        scores = found["logits"].float().log_softmax(dim=-1)
        told = scores.gather(2, labels.unsqueeze(2)).squeeze(2)
        mean: Tensor = (told * asked).sum(dim=1) / asked.sum(dim=1).clamp(min=1)
        return mean

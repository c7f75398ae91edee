"""Two towers that can also read a text and a picture together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from mmembed.backbones.towers.transformers_towers import TransformersTowers

__all__ = ["Matches", "MatchingTowers"]


@runtime_checkable
class Matches(Protocol):
    """Towers that score a text and a picture by both read together."""

    def match(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """``(n,)`` float32, higher where text ``i`` describes picture ``i`` better."""
        ...


class MatchingTowers(TransformersTowers):
    """Towers with an image-text matching (ITM) head."""

    def match(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """``(n,)`` float32 log-odds that text ``i`` describes picture ``i``."""
        raise NotImplementedError

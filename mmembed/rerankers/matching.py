"""Reranking by an image-text matching (ITM) head: BLIP and BLIP-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mmembed.backbones.towers.loading import load_towers
from mmembed.backbones.towers.matching import MatchingTowers
from mmembed.backbones.towers.model import TowerBatch
from mmembed.errors import InputError, ModelLoadError
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.rerankers.base import Pair

__all__ = ["MatchingReranker"]


class MatchingReranker(nn.Module):
    """How well a text describes a picture, by both read together (Li et al. 2022, 2023).

    Args:
        backbone: towers with a matching head.
    """

    #: The head was trained without instructions.
    instruction = ""

    def __init__(self, backbone: MatchingTowers) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def media_budget(self) -> MediaBudget:
        return self.backbone.media_budget

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        """One row a pair: the words of one side, the picture of the other, in either order.

        Raises:
            InputError: a pair is no text and one picture; ``position`` is its index.
        """
        joined = [
            replace(document, parts=(*query.parts, *document.parts), instruction="")
            for query, document in pairs
        ]
        rows = self.backbone.prepare(joined)
        for position, (row, item) in enumerate(zip(rows, joined, strict=True)):
            pictures = len(next(iter(row.extras.values()))) if row.extras else 0
            if pictures != 1 or not row.input_ids:
                words = "a text" if row.input_ids else "no text"
                raise InputError(
                    item.label,
                    f"with its query it is {words} and {pictures} pictures",
                    "a matching head reads one text and one picture",
                ).at(position)
        return rows

    def collate(self, rows: Sequence[Row]) -> TowerBatch:
        return self.backbone.collate(rows)

    def forward(self, batch: TowerBatch) -> Tensor:
        """``(n,)`` float32 log-odds of a match."""
        return self.backbone.match(batch.ids, batch.mask, batch.media)

    def save_pretrained(self, folder: str) -> None:
        self.backbone.save_pretrained(folder)

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype | None = None) -> MatchingReranker:
        """Load towers with a matching head.

        Raises:
            ModelLoadError: they have none, or a tensor is missing.
        """
        backbone = load_towers(folder, dtype=dtype)
        if not isinstance(backbone, MatchingTowers):
            raise ModelLoadError(f"{folder}: these towers have no matching head")
        return cls(backbone).eval()

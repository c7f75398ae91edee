"""Reranking by what reads text and picture together: BLIP's and BLIP-2's head, CoCa's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.backbones import load_backbone
from mmembed.backbones.towers.matching import Matches
from mmembed.backbones.towers.model import TowerBatch
from mmembed.errors import InputError, ModelLoadError
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.rerankers.base import Pair

__all__ = ["MatchingReranker"]


class MatchingReranker(nn.Module):
    """How well a text describes a picture, by both read together (Li et al. 2022, 2023).

    Args:
        backbone: two towers that are :class:`mmembed.backbones.towers.matching.Matches` too.
    """

    #: The head was trained without instructions.
    instruction = ""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def media_budget(self) -> MediaBudget:
        budget: MediaBudget = self.backbone.media_budget
        return budget

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        """One row a pair: the words of one side, the picture of the other, in either order.

        Raises:
            InputError: a pair is no text and one picture; ``position`` is its index.
        """
        joined = [
            replace(document, parts=(*query.parts, *document.parts), instruction="")
            for query, document in pairs
        ]
        rows: list[Row] = self.backbone.prepare(joined)
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
        batch: TowerBatch = self.backbone.collate(rows)
        return batch

    def forward(self, batch: TowerBatch) -> Tensor:
        """``(n,)`` float32: log-odds of a match, or the text's mean log-likelihood."""
        found: Tensor = self.backbone.match(batch.ids, batch.mask, batch.media)
        return found

    def save_pretrained(self, folder: str) -> None:
        self.backbone.save_pretrained(folder)

    @classmethod
    def from_name(cls, name: str | Path, *, dtype: torch.dtype | None = None) -> MatchingReranker:
        """Load towers by whatever :func:`mmembed.backbones.load_backbone` reads.

        Raises:
            ModelLoadError: they read no pair together, or a tensor is missing.
        """
        backbone = load_backbone(name, dtype=dtype)
        if not isinstance(backbone, Matches):
            raise ModelLoadError(f"{name}: these towers have no matching head, and no decoder")
        return cls(backbone).eval()

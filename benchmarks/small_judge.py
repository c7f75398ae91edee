"""A judge of pairs over the small model: one sequence of query and document, and yes against no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.backbones.composed import ComposedVLM
from mmembed.backbones.weights import read_safetensors
from mmembed.gpte.pooling import mean
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.rerankers.base import Pair

__all__ = ["Judge"]

_FILE = "answers.safetensors"
_WORDS = ("no", "yes")


class Judge(nn.Module):
    """The log-odds of the words yes and no in the mean state of query and document together.

    Implements :class:`mmembed.rerankers.base.PairScorer`.

    Args:
        answers: ``(2, hidden_size)`` embeddings of no and of yes.
    """

    instruction = ""

    def __init__(self, backbone: ComposedVLM, answers: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.answers = nn.Parameter(answers.detach().clone())

    @property
    def media_budget(self) -> MediaBudget:
        return self.backbone.media_budget

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        joined = [replace(q, parts=(*q.parts, "?", *d.parts)) for q, d in pairs]
        return self.backbone.prepare(joined)

    def collate(self, rows: Sequence[Row]) -> Any:
        return self.backbone.collate(rows)

    def forward(self, batch: Any) -> Tensor:
        """``(n,)`` log-odds."""
        return mean(self.backbone(batch)) @ (self.answers[1] - self.answers[0])

    def save_pretrained(self, folder: str) -> None:
        from safetensors.torch import save_file

        self.backbone.save_pretrained(folder)
        save_file({"answers": self.answers.detach().contiguous()}, Path(folder) / _FILE)

    @classmethod
    def from_folder(cls, folder: Path, load: Callable[[Path], ComposedVLM]) -> Judge:
        """What was saved here, or any composed model, whose word embeddings answer."""
        backbone = load(folder)
        if (folder / _FILE).exists():
            return cls(backbone, read_safetensors(folder / _FILE)["answers"]).eval()
        ids = torch.tensor(backbone.tokenizer.convert_tokens_to_ids(list(_WORDS)))
        return cls(backbone, backbone.text.get_input_embeddings()(ids)).eval()

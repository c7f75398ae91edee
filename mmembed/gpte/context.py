"""What a corpus is like, told to an encoder of its texts (Morris & Rush 2024).

"Contextual Document Embeddings": a first stage reads a sample of the corpus; its vectors become
tokens ahead of every row, for the second stage to read a text by. Here the first stage is a frozen
encoder, where the paper trains both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of
from mmembed.gpte.text_settings import ContextSettings

__all__ = ["CorpusTokens", "neighbours"]


class CorpusTokens(nn.Module):
    """Tokens ahead of every row, made of vectors of documents of the corpus.

    In training rows are read by their batch's neighbours, see :meth:`meet`, of which some are
    dropped for a learned vector that says nothing; afterwards by what :meth:`remember` was given.

    Args:
        width: of the encoder's token embeddings.
    """

    def __init__(self, settings: ContextSettings, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.projection = nn.Linear(settings.width, width)
        self.null = nn.Parameter(0.02 * torch.randn(width))
        self.soft = nn.Parameter(0.02 * torch.randn(settings.soft, width))
        self.vectors: Tensor
        self.known: Tensor
        self.register_buffer("vectors", torch.zeros(settings.documents, settings.width))
        self.register_buffer("known", torch.zeros(settings.documents, dtype=torch.bool))
        self._met: Tensor | None = None

    def remember(self, vectors: Tensor) -> None:
        """Keep the first stage's vectors of some documents, to read by and to be saved.

        Args:
            vectors: ``(d, width)``; of more than there are places the first count, and places
                without a document say nothing.

        Raises:
            ConfigError: they have another width.
        """
        vectors = self._checked(vectors)[: self.settings.documents]
        self.vectors.zero_()
        self.vectors[: len(vectors)] = vectors
        self.known.zero_()
        self.known[: len(vectors)] = True

    def meet(self, vectors: Tensor) -> None:
        """Read by these documents from now on, as long as the module trains."""
        self._met = self._checked(vectors)[: self.settings.documents]

    def forward(self, rows: int) -> Tensor:
        """``(rows, tokens, d)`` tokens for so many rows, the soft ones last."""
        if self.training and self._met is not None:
            vectors, known = self._met, torch.ones(len(self._met), dtype=torch.bool)
        else:
            vectors, known = self.vectors, self.known
        told = self.projection(F.normalize(vectors.to(self.projection.weight), dim=1))
        seen = known.to(told.device).expand(rows, -1)
        if self.training and self.settings.dropout:
            seen = seen & (torch.rand(seen.shape, device=seen.device) >= self.settings.dropout)
        tokens = torch.where(seen.unsqueeze(2), told, self.null)
        return torch.cat([tokens, self.soft.expand(rows, -1, -1)], dim=1)

    def _checked(self, vectors: Tensor) -> Tensor:
        if vectors.ndim != 2 or vectors.shape[1] != self.settings.width:
            raise ConfigError(
                f"the first stage's vectors are {tuple(vectors.shape)}, and the context takes "
                f"vectors of {self.settings.width}: set settings.context.width"
            )
        return vectors.to(self.vectors)


def neighbours(
    guide: Mapping[str, Tensor],
    meta: Mapping[str, Tensor],
    count: int,
    seed: Sequence[int],
    device: torch.device | str,
) -> Tensor:
    """``(count, g)`` vectors of documents of the batch of all processes; a collective call.

    The same on every process and for every number of processes.

    Args:
        guide: the first stage's vectors of this process's columns.
        meta: with the documents' hashes.

    Raises:
        ConfigError: there are no such vectors.
    """
    if "positive" not in guide:
        raise ConfigError("context tokens read a batch's documents: give a positive and data.guide")
    mine = guide["positive"].to(device)
    shard = shard_of(len(mine), mine.device)
    hashes = gather(meta["positive_hash"].to(device), shard)
    every = gather(mine, shard)[hashes.argsort(stable=True)]
    random = np.random.default_rng(list(seed))
    picks = random.permutation(len(every))[:count]
    return every[torch.from_numpy(picks).to(every.device)]

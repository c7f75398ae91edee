"""From the features of a vision tower to word embeddings of a text encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmembed.gpte.onednn import use_onednn

__all__ = ["Connector", "ConnectorShape"]


@dataclass(frozen=True, slots=True)
class ConnectorShape:
    """The sizes of a connector.

    Attributes:
        channels: features of one patch.
        tokens: patches, and so visual tokens, of one image.
        width: size of the text encoder's word embeddings.
        hidden: width of the perceptron.
        words: size of the codebook of soft words; 0 leaves it out.
    """

    channels: int
    tokens: int
    width: int
    hidden: int = 768
    words: int = 0


class Connector(nn.Module):
    """One visual token a patch: a soft word, a perceptron and the patch's place, added up.

    The soft word is an average of a codebook's word embeddings, weighted by how well the patch fits
    each of them. A vision tower that was trained to classify starts it from the classifier's
    weights and the embeddings of the classes' names (as ConSE does for whole images, Norouzi et
    al., 2014), so that the text encoder reads sensible words before any training. The perceptron
    adds what the classes' names do not say.
    """

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.channels))
        self.register_buffer("std", torch.ones(shape.channels))
        self.perceptron = nn.Sequential(
            nn.Linear(shape.channels, shape.hidden),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(shape.hidden, shape.width),
        )
        self.place = nn.Parameter(torch.zeros(shape.tokens, shape.width))
        if shape.words:
            self.fit = nn.Linear(shape.channels, shape.words)
            self.words = nn.Parameter(torch.zeros(shape.words, shape.width))
        use_onednn(self)

    @property
    def tokens(self) -> int:
        """Visual tokens of one image."""
        return self.shape.tokens

    mean: Tensor
    std: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """``(n, tokens, channels)`` features to ``(n, tokens, width)`` word embeddings."""
        features = features.to(self.place.dtype)
        tokens: Tensor = self.perceptron((features - self.mean) / self.std) + self.place
        if self.shape.words:
            tokens = tokens + self.fit(features).softmax(-1) @ self.words
        return tokens

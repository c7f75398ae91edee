"""From the features of a vision tower to word embeddings of a text encoder.

An image is read in two steps. A kernel regression on its pooled features says where its description
would lie in the space of sentence embeddings: of all smooth functions the one that generalises best
from a few thousand captioned images. Where the tower comes with a classifier, the names of the
classes that it sees, each by its probability, are regressed upon too (ConSE, Norouzi et al., 2013):
they are what is known of things that no captioned image shows. A small decoder then writes visual
tokens that make the text encoder arrive at that place, as prefix inversion does (Morris et al.,
"Text Embeddings Reveal (Almost) As Much As Text", 2023), and each patch adds what is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.gpte.onednn import use_onednn

__all__ = ["Connector", "ConnectorShape", "pooled_features"]


@dataclass(frozen=True, slots=True)
class ConnectorShape:
    """The sizes of a connector.

    Attributes:
        channels: features of one patch.
        tokens: patches, and so visual tokens, of one image.
        width: size of the text encoder's word embeddings and of its sentence embeddings.
        landmarks: images that the kernel regression compares with.
        hidden: width of the decoder.
        groups: different tokens that the decoder writes; patch ``i`` takes number ``i % groups``.
        classes: named classes of the tower's own classifier; 0 for a tower without.
        classified: channels that the classifier reads, the first ones.
    """

    channels: int
    tokens: int
    width: int
    landmarks: int
    hidden: int = 512
    groups: int = 9
    classes: int = 0
    classified: int = 0


def pooled_features(features: Tensor) -> Tensor:
    """``(n, patches, channels)`` to ``(n, channels)``: the mean, by its signed square root.

    The root (Hellinger mapping, Arandjelovic and Zisserman, 2012) tames the few large activations.
    """
    pooled = features.float().mean(dim=1)
    return pooled.sign() * pooled.abs().sqrt()


class Connector(nn.Module):
    """One visual token a patch.

    Fresh ones are random; :mod:`mmembed.multimodal.alignment` trains them.
    """

    mean: Tensor
    std: Tensor
    bandwidth: Tensor
    axis: Tensor

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.channels))
        self.register_buffer("std", torch.ones(shape.channels))
        self.register_buffer("bandwidth", torch.tensor(float(shape.channels)))
        self.register_buffer("axis", torch.zeros(shape.width))
        self.landmarks = nn.Parameter(torch.randn(shape.landmarks, shape.channels))
        self.coefficients = nn.Parameter(torch.randn(shape.landmarks, shape.width) * 0.1)
        self.classifier: nn.Linear | None = None
        if shape.classes:
            self.classifier = nn.Linear(shape.classified, shape.classes)
            self.names = nn.Parameter(torch.randn(shape.classes, shape.width) * 0.1)
        self.expand = nn.Linear(shape.width, shape.hidden)
        self.write = nn.Linear(shape.hidden, shape.groups * shape.width)
        self.place = nn.Parameter(torch.randn(shape.tokens, shape.width) * 0.02)
        nn.init.normal_(self.write.weight, std=0.01)
        use_onednn(self)

    @property
    def tokens(self) -> int:
        """Visual tokens of one image."""
        return self.shape.tokens

    def standardised(self, roots: Tensor) -> Tensor:
        """Pooled features ``(..., channels)`` in units of their spread over the training images."""
        return (roots - self.mean) / self.std

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Gaussian kernel of standardised pooled features: ``(n, m)``."""
        return (-torch.cdist(a, b).square() / self.bandwidth).exp()

    def place_in_space(self, roots: Tensor) -> Tensor:
        """Pooled features ``(n, channels)`` to unit sentence embeddings ``(n, width)``."""
        found = self.kernel(self.standardised(roots), self.landmarks) @ self.coefficients
        if self.classifier is not None:
            found = found + self.probabilities(roots) @ self.names
        return self.placed(found)

    def probabilities(self, roots: Tensor) -> Tensor:
        """``(n, classes)`` of the tower's own classes, from pooled features ``(n, channels)``."""
        assert self.classifier is not None
        means = roots * roots.abs()
        logits: Tensor = self.classifier(means[:, : self.shape.classified])
        return logits.softmax(dim=1)

    def placed(self, found: Tensor) -> Tensor:
        """Regressed ``(n, width)`` to unit sentence embeddings.

        What all descriptions share (``axis``) says nothing about one image: its share is fixed.
        """
        own = F.normalize(found - (found @ self.axis)[:, None] * self.axis, dim=-1)
        return F.normalize(own + 0.5 * self.axis, dim=-1)

    def decode(self, target: Tensor) -> Tensor:
        """Unit sentence embeddings ``(n, width)`` to visual tokens ``(n, tokens, width)``."""
        groups, width = self.shape.groups, self.shape.width
        # Components of unit vectors are small; the decoder wants them near one.
        hidden = F.gelu(self.expand(target * width**0.5))
        written = self.write(hidden).view(-1, groups, width)
        order = torch.arange(self.tokens, device=target.device) % groups
        return written[:, order] + self.place

    def forward(self, features: Tensor) -> Tensor:
        """``(n, tokens, channels)`` features to ``(n, tokens, width)`` word embeddings."""
        features = features.to(self.place.dtype)
        return self.decode(self.place_in_space(pooled_features(features)))

"""Shorter dense vectors: the first dimensions, which Matryoshka models train to stand alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmembed.encoded import Encoded
from mmembed.errors import ConfigError
from mmembed.inputs.items import ItemLike
from mmembed.search.model import EmbeddingModel, Role

__all__ = ["Truncated"]


class Truncated:
    """A model whose dense vectors are cut to ``dim`` and normalised again.

    From Kusupati et al., "Matryoshka Representation Learning" (NeurIPS 2022).

    Raises:
        ConfigError: the model's vectors are shorter.
    """

    def __init__(self, model: EmbeddingModel, dim: int) -> None:
        if not 0 < dim <= model.dim:
            raise ConfigError(f"dim={dim}: {model.name!r} has vectors of {model.dim} dimensions")
        self.model = model
        self.dim = dim

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    @property
    def outputs(self) -> Sequence[str]:
        return tuple(getattr(self.model, "outputs", ("dense",)))

    def encode_stream(
        self, items: Iterable[ItemLike], /, *, role: Role, **options: Any
    ) -> Iterator[Encoded]:
        for encoded in self.model.encode_stream(items, role=role, **options):
            if encoded.vector is not None:
                kept = encoded.vector[: self.dim]
                length = max(float(np.linalg.norm(kept)), 1e-12)
                encoded = replace(encoded, vector=np.asarray(kept / length, dtype=np.float32))
            yield encoded

"""One vector for many: fixed dimensional encodings, whose dot product stands in for MaxSim.

From Dhulipala, Hadian, Jayaram, Lee and Mirrokni, "MUVERA: Multi-Vector Retrieval via Fixed
Dimensional Encodings" (NeurIPS 2024). Random hyperplanes cut the space into regions; a query is the
sum of its tokens in each region, a document their mean, and a region without tokens of the document
takes the token nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

__all__ = ["FixedEncoding"]

_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class FixedEncoding:
    """The regions and projections of one index; the same numbers always give the same ones.

    Attributes:
        width: dimensions of a token.
        planes: hyperplanes of one cut, which make ``2 ** planes`` regions.
        cuts: independent cuts.
        projected: dimensions that a token keeps in a region.
        seed: of the random numbers.
    """

    width: int
    planes: int = 4
    cuts: int = 16
    projected: int = 8
    seed: int = 0

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.cuts * self.projected * 2**self.planes

    @cached_property
    def _hyperplanes(self) -> _Float32:
        rng = np.random.default_rng((self.seed, 0))
        return rng.standard_normal((self.cuts, self.width, self.planes)).astype(np.float32)

    @cached_property
    def _projections(self) -> _Float32:
        rng = np.random.default_rng((self.seed, 1))
        signs = rng.integers(0, 2, (self.cuts, self.width, self.projected)) * 2 - 1
        return (signs / np.sqrt(self.projected)).astype(np.float32)

    def query(self, tokens: _Float32) -> _Float32:
        """``(dim,)`` float32 of the ``(t, width)`` tokens of a query."""
        sums, _, _ = self._summed(tokens)
        return sums.reshape(-1)

    def document(self, tokens: _Float32) -> _Float32:
        """``(dim,)`` float32 of the ``(t, width)`` tokens of a document, at least one."""
        sums, counts, regions = self._summed(tokens)
        means = sums / np.maximum(counts, 1)[:, :, None]
        projected = np.einsum("tk,ckp->ctp", np.asarray(tokens, np.float32), self._projections)
        every = np.arange(2**self.planes)
        for cut in range(self.cuts):
            empty = every[counts[cut] == 0]
            # As far as two regions are apart, so many hyperplanes lie between them.
            between = _ONES[empty[:, None] ^ regions[cut][None]]
            means[cut, empty] = projected[cut, between.argmin(axis=1)]
        return np.asarray(means.reshape(-1), dtype=np.float32)

    def _summed(self, tokens: _Float32) -> tuple[_Float32, Any, Any]:
        """Sums ``(cuts, regions, projected)``, counts ``(cuts, regions)``, the tokens' regions."""
        wide = np.asarray(tokens, dtype=np.float32)
        bits = np.einsum("tk,ckp->ctp", wide, self._hyperplanes) > 0
        regions = bits @ (1 << np.arange(self.planes))
        projected = np.einsum("tk,ckp->ctp", wide, self._projections)
        sums = np.zeros((self.cuts, 2**self.planes, self.projected), np.float32)
        counts = np.zeros((self.cuts, 2**self.planes), np.int64)
        for cut in range(self.cuts):
            np.add.at(sums[cut], regions[cut], projected[cut])
            np.add.at(counts[cut], regions[cut], 1)
        return sums, counts, regions


_ONES = np.array([number.bit_count() for number in range(1 << 12)])

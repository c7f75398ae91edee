"""Near-duplicates by MinHash (Broder, 1997) with locality-sensitive bands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from codeembed.pairs.pair import Pair, digest

__all__ = ["NearDuplicates", "similarity", "unique"]

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PRIME = (1 << 61) - 1


def _shingles(text: str, size: int) -> frozenset[str]:
    tokens = _TOKEN.findall(text)
    count = max(1, len(tokens) - size + 1)
    return frozenset(" ".join(tokens[i : i + size]) for i in range(count))


def similarity(first: str, second: str, size: int = 3) -> float:
    """Jaccard similarity of the token shingles of two texts."""
    one, other = _shingles(first, size), _shingles(second, size)
    return len(one & other) / len(one | other)


class NearDuplicates:
    """The texts seen so far, and whether a new one is nearly one of them.

    Bands find candidates; their shingles are then compared, so nothing below the threshold is
    ever called a duplicate, whatever the hashes do.

    Args:
        threshold: Least Jaccard similarity of duplicates.
        bands: Groups of hashes; one equal group makes a candidate.
        rows: Hashes of a group. 16 groups of 4 find 95 % of the pairs of similarity 0.65.
        size: Tokens of a shingle.
    """

    def __init__(
        self, threshold: float = 0.8, *, bands: int = 16, rows: int = 4, size: int = 3
    ) -> None:
        self.threshold, self.bands, self.rows, self.size = threshold, bands, rows, size
        random = np.random.default_rng(0)
        self._factors = random.integers(1, 1 << 31, bands * rows, dtype=np.uint64)
        self._shifts = random.integers(0, 1 << 31, bands * rows, dtype=np.uint64)
        self._kept: list[frozenset[str]] = []
        self._buckets: dict[tuple[int, bytes], list[int]] = {}

    def add(self, text: str) -> bool:
        """Keep a text unless it is nearly one that was kept; says whether it was new."""
        shingles = _shingles(text, self.size)
        keys = [
            (i, band.tobytes())
            for i, band in enumerate(self._signature(shingles).reshape(self.bands, self.rows))
        ]
        candidates = {number for key in keys for number in self._buckets.get(key, ())}
        for number in candidates:
            other = self._kept[number]
            if len(shingles & other) >= self.threshold * len(shingles | other):
                return False
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._kept))
        self._kept.append(shingles)
        return True

    def _signature(self, shingles: frozenset[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        hashes = np.array([digest(each) & 0x7FFFFFFF for each in shingles], dtype=np.uint64)
        mixed = hashes[:, None] * self._factors + self._shifts
        return np.asarray((mixed % np.uint64(_PRIME)).min(axis=0))


def unique(pairs: Iterable[Pair], threshold: float = 0.8) -> Iterator[Pair]:
    """Pairs without those whose code is nearly that of an earlier pair of the same kind, or whose
    query and kind occurred before."""
    codes: dict[str, NearDuplicates] = {}
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        key = (pair.kind, " ".join(pair.query.lower().split()))
        known = codes.setdefault(pair.kind, NearDuplicates(threshold))
        if key not in seen and known.add(pair.positive):
            seen.add(key)
            yield pair

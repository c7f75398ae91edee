"""Pairs of pictures that are alike in different ways (MegaPairs, Zhou et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmembed.errors import ConfigError

__all__ = ["PicturePair", "picture_pairs"]

_ROWS = 512


@dataclass(frozen=True, slots=True)
class PicturePair:
    """Two pictures that one similarity calls related, and its other neighbours.

    Attributes:
        query, target: numbers of the pictures.
        similarity: the one that found them.
        score: their cosine under it.
        negatives: pictures that are hard negatives, the query first: a model must not answer a
            question about a picture with the picture itself.
    """

    query: int
    target: int
    similarity: str
    score: float
    negatives: tuple[int, ...]


def picture_pairs(
    vectors: Mapping[str, NDArray[np.float32]],
    *,
    bands: Mapping[str, tuple[float, float]] | None = None,
    neighbours: int = 20,
    targets: int = 1,
    negatives: int = 4,
) -> Iterator[PicturePair]:
    """Pairs of a corpus under several similarities, each with the vectors of an encoder of its own.

    Args:
        vectors: ``(n, d)`` unit rows by the similarity's name, e.g. what a picture shows, how it
            looks, and what its caption says.
        bands: lowest and highest cosine of a pair, by name; nearer are duplicates. By default 0.5
            to 0.95.
        neighbours: of which targets and negatives are taken.
        targets: pairs of a picture and a similarity at most, the best first.
        negatives: of a pair, the query included.

    Raises:
        ConfigError: the encoders disagree about the number of pictures.
    """
    sizes = {len(rows) for rows in vectors.values()}
    if len(sizes) != 1:
        raise ConfigError(f"the similarities hold different numbers of pictures: {sorted(sizes)}")
    (count,) = sizes
    for name, rows in vectors.items():
        low, high = (bands or {}).get(name, (0.5, 0.95))
        for start in range(0, count, _ROWS):
            scores = rows[start : start + _ROWS] @ rows.T
            scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf
            k = min(neighbours, count - 1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            for i, near in enumerate(best):
                yield from _pairs(
                    name, start + i, near.tolist(), scores[i], (low, high), targets, negatives
                )


def _pairs(
    name: str,
    query: int,
    near: Sequence[int],
    scores: NDArray[np.float32],
    band: tuple[float, float],
    targets: int,
    negatives: int,
) -> Iterator[PicturePair]:
    good = [i for i in near if band[0] <= scores[i] <= band[1]]
    # What is nearer than the band may be the same picture again: no negative either.
    others = [i for i in near if scores[i] <= band[1]]
    for target in good[:targets]:
        hard = [i for i in others if i != target][: negatives - 1]
        yield PicturePair(query, target, name, float(scores[target]), (query, *hard))

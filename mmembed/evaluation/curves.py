"""What is left of a task's score when vectors are cut short or stored with fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks.tasks import Array, Sides, Task

__all__ = [
    "QUANTISERS",
    "binary",
    "cut_curve",
    "default_cuts",
    "float16",
    "int8",
    "quantisation_curve",
    "truncated",
]


def truncated(sides: Sides, dim: int) -> Sides:
    """The first ``dim`` dimensions of both sides (Matryoshka; Kusupati et al., 2022).

    Raises:
        ConfigError: the vectors are shorter.
    """
    if not 0 < dim <= sides[0].shape[1]:
        raise ConfigError(f"dim={dim}: these vectors have {sides[0].shape[1]} dimensions")
    return sides[0][:, :dim], sides[1][:, :dim]


def float16(sides: Sides) -> Sides:
    """Both sides through 16-bit floats."""
    return _both(sides, lambda x: x.astype(np.float16).astype(np.float32))


def int8(sides: Sides) -> Sides:
    """Both sides through 256 levels a dimension, between the second side's extremes."""
    low, high = sides[1].min(axis=0), sides[1].max(axis=0)
    step = np.maximum(high - low, 1e-12) / 255.0

    def quantise(x: Array) -> Array:
        levels = np.clip(np.rint((x - low) / step), 0, 255)
        return np.asarray(levels * step + low, dtype=np.float32)

    return _both(sides, quantise)


def binary(sides: Sides) -> Sides:
    """One bit a dimension, its sign: cosines of these order as Hamming distances do."""
    return _both(sides, lambda x: np.where(x > 0, 1.0, -1.0).astype(np.float32))


QUANTISERS: Mapping[str, Callable[[Sides], Sides]] = {
    "float32": lambda sides: sides,
    "float16": float16,
    "int8": int8,
    "binary": binary,
}


def default_cuts(width: int) -> list[int]:
    """The width, and its halves down to 16."""
    cuts = [width]
    while cuts[-1] // 2 >= 16:
        cuts.append(cuts[-1] // 2)
    return cuts


def cut_curve(task: Task, sides: Sides, cuts: Sequence[int]) -> dict[int, float]:
    """The task's score by number of dimensions that are kept."""
    return {dim: task.score(truncated(sides, dim)).score for dim in cuts}


def quantisation_curve(task: Task, sides: Sides) -> dict[str, float]:
    """The task's score by how vectors are stored."""
    return {name: task.score(quantise(sides)).score for name, quantise in QUANTISERS.items()}


def _both(sides: Sides, change: Callable[[Array], Array]) -> Sides:
    return change(sides[0]), change(sides[1])

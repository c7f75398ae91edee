"""What a measurement is: values with their intervals, and how many were compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mmembed.gpte.metrics import bootstrap_interval

__all__ = ["Figure", "Measured", "figure_of", "resampled"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % bootstrap interval over queries or rows."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def as_list(self) -> list[float]:
        """``[value, low, high]``, to 6 places."""
        return [round(x, 6) for x in (self.value, self.low, self.high)]


@dataclass(frozen=True, slots=True)
class Measured:
    """One task, measured.

    Attributes:
        main: name of the metric that stands for the task.
        metrics: figures by name, from 0 to 1 (rank correlations from -1).
        queries: number of queries, rows or pairs.
        candidates: number of documents or names that each is compared with; 0 for pairs.
        values: the main metric of each query, where it has one; for paired comparisons.
    """

    main: str
    metrics: Mapping[str, Figure]
    queries: int
    candidates: int
    values: Sequence[float] = field(default=(), repr=False)

    @property
    def score(self) -> float:
        """The main metric's value."""
        return self.metrics[self.main].value

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the single queries'."""
        return {
            "main": self.main,
            "queries": self.queries,
            "candidates": self.candidates,
            "metrics": {name: figure.as_list() for name, figure in self.metrics.items()},
        }


def figure_of(values: Array) -> Figure:
    """The mean of ``values (q,)`` with its interval."""
    return Figure(float(np.mean(values)), *bootstrap_interval(values))


def resampled(statistic: Callable[[Array], float], rows: int, resamples: int = 500) -> Figure:
    """A statistic of rows that is no mean, with the percentile bootstrap interval over rows.

    Args:
        statistic: takes indices of rows ``(n,)``; NaN where a resample has no value.
        rows: how many there are.
        resamples: how often it is computed again.
    """
    rng = np.random.default_rng(0)
    found = [statistic(rng.integers(0, rows, rows)) for _ in range(resamples)]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Figure(statistic(np.arange(rows)), float(low), float(high))

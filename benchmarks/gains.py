"""What runs gain on held-out sets, with intervals over queries and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmembed.gpte.evaluating import Measured

__all__ = ["Ran", "gains", "told"]

DRAWS = 1000  # of the bootstrap
Sets = Mapping[str, Measured]


@dataclass(frozen=True)
class Ran:
    """One run, measured before and after on the same sets.

    Attributes:
        besides: further comparisons by name, each with the sets before and after it.
        seconds: of the run and the measuring.
        cpu_seconds: the same, of the processor.
    """

    before: Sets
    after: Sets
    besides: Mapping[str, tuple[Sets, Sets]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def told(runs: Sequence[Ran]) -> dict[str, Any]:
    """Numbers of one recipe's runs, one a seed, for a results file; scores are their means."""
    found = gains([(run.before, run.after) for run in runs])
    for name in runs[0].besides:
        found[name] = gains([run.besides[name] for run in runs])
    return found | {
        "seconds": round(sum(run.seconds for run in runs)),
        "cpu_seconds": round(sum(run.cpu_seconds for run in runs)),
    }


def gains(runs: Sequence[tuple[Sets, Sets]]) -> dict[str, Any]:
    """The mean gain over sets and seeds, and its 95% interval by bootstrap.

    A draw takes queries of every set anew, the same ones before and after and under all seeds, and
    one seed less than there are: the mean of that many varies as the mean of all does, where as
    many as there are would vary less (Rao and Wu, 1988).

    Args:
        runs: sets before and after, a run a seed.
    """
    names = list(runs[0][0])
    queries, seeds = np.random.default_rng(0), np.random.default_rng(1)
    chosen = seeds.integers(0, len(runs), (DRAWS, max(1, len(runs) - 1)))
    draws = np.zeros((len(names), DRAWS))
    for i, name in enumerate(names):
        pairs = [(before[name], after[name]) for before, after in runs]
        rows = len(pairs[0][0].values)
        for j in range(DRAWS):
            picks = queries.integers(0, rows, rows)
            draws[i, j] = np.mean([_gain(*pairs[seed], picks) for seed in chosen[j]])
    each = np.array([[_gain(before[n], after[n]) for n in names] for before, after in runs])
    interval = _interval(draws.mean(axis=0))
    return {
        "sets": {
            name: {
                "rows": len(runs[0][0][name].values),
                "before": _mean([before[name] for before, _ in runs]),
                "after": _mean([after[name] for _, after in runs]),
                "interval": _interval(row),
            }
            for name, row in zip(names, draws, strict=True)
        },
        "gain": round(float(each.mean()), 4),
        "interval": interval,
        "gains": [round(float(one), 4) for one in each.mean(axis=1)],
        "beats_start": bool(interval[0] > 0),
    }


def _gain(before: Measured, after: Measured, picks: Any = None) -> float:
    return after.number(picks) - before.number(picks)


def _mean(some: Sequence[Measured]) -> float:
    return round(float(np.mean([one.number() for one in some])), 4)


def _interval(draws: Any) -> list[float]:
    return [round(float(x), 4) for x in np.quantile(draws, [0.025, 0.975])]

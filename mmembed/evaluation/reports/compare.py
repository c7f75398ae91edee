"""Whether a run is worse than an earlier one, for people and for CI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmembed.errors import InputError
from mmembed.gpte.metrics import bootstrap_interval

__all__ = ["Change", "compare_runs"]


@dataclass(frozen=True, slots=True)
class Change:
    """The main metric of one subset in two runs.

    Attributes:
        before: its value in the earlier run.
        after: its value in the later run.
        low: lower end of the 95 % paired bootstrap interval of the difference, over queries; the
            difference itself where a metric has no values a query.
        high: upper end of it.
        worse: whether it fell by more than the tolerance, and not by chance.
    """

    benchmark: str
    subset: str
    metric: str
    before: float
    after: float
    low: float
    high: float
    worse: bool

    def __str__(self) -> str:
        mark = "WORSE" if self.worse else "ok"
        change = f"{self.after - self.before:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
        name = f"{self.benchmark}/{self.subset}"
        return f"{mark:6} {name:32} {self.metric:10} {self.before:.4f} {self.after:.4f} {change}"


def compare_runs(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: float = 0.01
) -> list[Change]:
    """Compare what two sets of saved runs both measured.

    A subset is worse if its main metric fell by more than the tolerance and the interval of the
    paired difference lies below 0: noise of few queries does not fail a build, nor does a drop that
    is certain and small.

    Raises:
        InputError: they measured nothing in common, or other queries under one name.
    """
    earlier = {(run["benchmark"], name): one for run, name, one in _subsets(before)}
    found = []
    for run, name, one in _subsets(after):
        old = earlier.get((run["benchmark"], name))
        if old is not None and old["main"] == one["main"]:
            found.append(_change(run["benchmark"], name, old, one, tolerance))
    if not found:
        raise InputError("runs", "have no benchmark in common", "measure the same ones")
    return found


def _change(
    benchmark: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float
) -> Change:
    metric = str(new["main"])
    before, after = (float(one["metrics"][metric][0]) for one in (old, new))
    if (old["queries"], old["candidates"]) != (new["queries"], new["candidates"]):
        raise InputError(
            f"{benchmark}/{name}",
            f"was measured over {old['queries']} queries and {old['candidates']} candidates, and "
            f"now over {new['queries']} and {new['candidates']}",
            "measure both runs on the same data",
        )
    low = high = after - before
    if new.get("values") and len(old.get("values", ())) == len(new["values"]):
        low, high = bootstrap_interval(np.array(new["values"]) - np.array(old["values"]))
    worse = before - after > tolerance and high < 0
    return Change(benchmark, name, metric, before, after, low, high, worse)


def _subsets(
    runs: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    measured = [run for run in runs if run["kind"] == "eval"]
    return [(run, name, one) for run in measured for name, one in run["subsets"].items()]

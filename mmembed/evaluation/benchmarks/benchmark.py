"""What a local benchmark says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmembed.evaluation.benchmarks.tasks import Task

__all__ = ["Benchmark"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark over files that lie here; nothing is fetched.

    Attributes:
        name: what ``mmembed eval`` calls it.
        about: one line.
        licence: of the data, as their source states it; "research only" where it states none.
        split: which part is measured.
        source: where the data come from.
        needs: paths below the data folder that must be there.
        modalities: what a model must read.
        read: tasks by subset, from the data folder.
    """

    name: str
    about: str
    licence: str
    split: str
    source: str
    needs: tuple[str, ...]
    modalities: tuple[str, ...]
    read: Callable[[Path], Mapping[str, Task]]

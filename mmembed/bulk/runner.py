"""Running a job on this machine: in this process, or in several of their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import TypeAlias

from mmembed.bulk.job import Counts, Job
from mmembed.bulk.shards import Shard
from mmembed.bulk.work import LoadModel, work
from mmembed.errors import MmembedError
from mmembed.search.model import EmbeddingModel

__all__ = ["Progress", "State", "Watch", "run_local", "share_of"]

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is.

    Attributes:
        done: shards finished, by this run or before.
        shards: all of them.
        counts: of the finished ones.
        rows_per_second: vectors a second since this run began.
    """

    done: int
    shards: int
    counts: Counts
    rows_per_second: float


Progress: TypeAlias = Callable[[State], None]


def share_of(shards: Sequence[Shard], part: int, parts: int) -> list[Shard]:
    """Every ``parts``-th shard, from number ``part`` (1 to ``parts``) on, for job arrays."""
    return list(shards[part - 1 :: parts])


def run_local(
    job: Job,
    load: LoadModel,
    *,
    workers: int = 1,
    mine: Sequence[Shard] | None = None,
    progress: Progress | None = None,
) -> State:
    """Do the shards that are not done; call it again after any accident.

    Args:
        load: makes the model, in each process; must be picklable where there are several.
        workers: processes; each holds a model.
        mine: the shards to care for; all of them by default.
        progress: called about twice a second, and at the end.

    Raises:
        MmembedError: a worker has failed; what is done stays done.
    """
    watch = Watch(job, progress)
    chosen = list(job.shards if mine is None else mine)
    if workers <= 1:
        # Loading a model for each shard would cost more than the shard.
        kept = _Kept(load)
        for shard in _waiting(job, chosen):
            work(job, kept, [shard])
            watch.glance()
        return watch.look()
    context = multiprocessing.get_context("spawn")
    waiting = _waiting(job, chosen)
    processes: list[BaseProcess] = []
    for number in range(min(workers, len(waiting))):
        # Each begins elsewhere, so that they seldom reach for the same shard.
        order = waiting[number::workers] + waiting
        process: BaseProcess = context.Process(target=work, args=(job, load, order), daemon=True)
        process.start()
        processes.append(process)
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(_POLL_SECONDS)
            watch.look()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed and _waiting(job, chosen):
        raise MmembedError(
            f"{len(failed)} of {len(processes)} workers ended with status {failed[0]}; "
            "what is done stays done: run the same again to go on"
        )
    return watch.look()


def _waiting(job: Job, shards: Sequence[Shard]) -> list[Shard]:
    done = job.done_names()
    return [shard for shard in shards if shard.name not in done]


class _Kept:
    """Loads at the first call, and gives the same afterwards."""

    def __init__(self, load: LoadModel) -> None:
        self._load = load
        self._model: EmbeddingModel | None = None

    def __call__(self) -> EmbeddingModel:
        if self._model is None:
            self._model = self._load()
        return self._model


class Watch:
    """Looks at a job's folder and tells of its state."""

    def __init__(self, job: Job, progress: Progress | None) -> None:
        self._job = job
        self._progress = progress
        self._known: dict[str, Counts] = {}
        self._by_name = {shard.name: shard for shard in job.shards}
        self._started = self._looked = time.monotonic()
        self._before = self._read().rows

    def look(self) -> State:
        """The state now."""
        counts = self._read()
        self._looked = time.monotonic()
        taken = max(self._looked - self._started, 1e-9)
        rate = (counts.rows - self._before) / taken
        state = State(len(self._known), len(self._job.shards), counts, rate)
        if self._progress is not None:
            self._progress(state)
        return state

    def glance(self) -> None:
        """Look, but not more often than twice a second."""
        if time.monotonic() - self._looked > _POLL_SECONDS:
            self.look()

    def _read(self) -> Counts:
        # A finished shard stays as it is, so each is read once.
        for name in self._job.done_names() - self._known.keys():
            if (shard := self._by_name.get(name)) and (counts := self._job.counts(shard)):
                self._known[name] = counts
        return sum(self._known.values(), Counts())

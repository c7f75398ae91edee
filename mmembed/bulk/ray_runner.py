"""The same job on Ray Data: from this machine's cores to a cluster that shares the output folder.

Ray hands shards to actors that hold the model; the shards and their files are the job's own, so
whatever Ray loses is done again by the next run. Two of its habits are worked around: a job hangs
for ever when its actors take every processor (ray-project/ray#44687), and dead actors can leave it
waiting; so actors ask for fewer processors than there are, and a run without progress ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmembed.bulk.job import Job
from mmembed.bulk.runner import Progress, State, Watch
from mmembed.bulk.work import LoadModel, work
from mmembed.errors import MissingDependencyError, MmembedError

if TYPE_CHECKING:
    from mmembed.search.model import EmbeddingModel

__all__ = ["run_ray"]


class _Worker:
    """An actor: loads the model at its first shard."""

    def __init__(self, folder: str, load: LoadModel) -> None:
        from pathlib import Path

        self._job = Job.open(Path(folder))
        self._load = load
        self._model: EmbeddingModel | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        for number in batch["number"]:
            shard = self._job.shards[int(number)]
            work(self._job, self._loaded, [shard])
        return {"number": batch["number"]}

    def _loaded(self) -> EmbeddingModel:
        if self._model is None:
            self._model = self._load()
        return self._model


def run_ray(
    job: Job,
    load: LoadModel,
    *,
    workers: int = 1,
    gpus_per_worker: float = 0.0,
    address: str | None = None,
    stall_seconds: float = 1800.0,
    progress: Progress | None = None,
) -> State:
    """Do the shards that are not done, by actors of Ray Data.

    Args:
        workers: actors; each holds a model.
        gpus_per_worker: GPUs of each.
        address: of a running cluster; by default one is started here, and stopped again.
        stall_seconds: without a finished shard for so long, the run ends with an error.

    Raises:
        MissingDependencyError: Ray is not installed.
        MmembedError: a shard failed, or nothing was finished for ``stall_seconds``.
    """
    # A run that is given up leaves a thread behind, and its next call would start Ray once more.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("the Ray runner", "ray") from error

    watch = Watch(job, progress)
    waiting = [i for i, shard in enumerate(job.shards) if job.counts(shard) is None]
    if not waiting:
        return watch.look()
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    try:
        processors = float(ray.cluster_resources().get("CPU", 1))
        # One is left for reading, or nothing ever starts.
        share = min(1.0, max(processors - 1, processors / 2) / workers)
        actors: dict[str, Any] = {"num_cpus": share}
        if gpus_per_worker:
            actors["num_gpus"] = gpus_per_worker
        ray.data.DataContext.get_current().enable_progress_bars = False
        shards = ray.data.from_items([{"number": i} for i in waiting])
        shards = shards.repartition(len(waiting))
        done = shards.map_batches(
            _Worker,
            fn_constructor_args=(str(job.folder.absolute()), load),
            batch_size=1,
            concurrency=min(workers, len(waiting)),
            **actors,
        )
        _consume(done, watch, stall_seconds)
    finally:
        if ours:
            ray.shutdown()
    return watch.look()


def _consume(done: Any, watch: Watch, stall_seconds: float) -> None:
    """Run a data set to its end in a thread, while this one looks whether it gets on."""
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            for _ in done.iter_rows():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    finished, since = -1, time.monotonic()
    while thread.is_alive():
        thread.join(0.5)
        state = watch.look()
        if state.done != finished:
            finished, since = state.done, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise MmembedError(
                f"Ray finished no shard for {stall_seconds:g} seconds; what is done stays done: "
                "look at the cluster, and run the same again"
            )
    if failures:
        raise MmembedError(f"a shard failed under Ray: {failures[0]}") from failures[0]

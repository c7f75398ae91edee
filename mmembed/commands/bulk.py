"""``mmembed bulk``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mmembed.bulk.collecting import into_index, into_lance
from mmembed.bulk.job import Job, Settings
from mmembed.bulk.runner import State, run_local, share_of
from mmembed.bulk.shards import cut
from mmembed.commands.output import EXIT_OK, Output
from mmembed.errors import ConfigError
from mmembed.search.model import EmbeddingModel

__all__ = ["Running", "bulk_embed"]


@dataclass(frozen=True, slots=True)
class Running:
    """How a job runs, as the command line names it."""

    runner: Literal["local", "ray"] = "local"
    workers: int = 1
    gpus: float = 0.0
    address: str | None = None
    shard: str | None = None


def bulk_embed(
    source: str,
    folder: Path,
    settings: Settings,
    running: Running,
    into: Path | None,
    output: Output,
) -> int:
    """Run a job to its end, and collect what it made."""
    job = Job.start(folder.expanduser(), settings, cut(source))
    load = partial(_load, settings.model)
    state = _run(job, load, running, _told(output))
    record = {
        "output": str(folder),
        "shards": state.shards,
        "done": state.done,
        "rows": state.counts.rows,
        "errors": state.counts.errors,
        "rows_per_second": round(state.rows_per_second, 2),
    }
    text = (
        f"{folder}: {state.counts.rows} vectors in {state.done} of {state.shards} shards, "
        f"{state.counts.errors} rows with errors, {state.rows_per_second:.1f} a second"
    )
    if into is not None:
        if running.shard is not None:
            raise ConfigError("--into: collect when all shards are done, without --shard")
        target = into.expanduser()
        if target.suffix == ".lance":
            record["into"], count = str(into), into_lance(job, target)
        else:
            report = into_index(job, target, load())
            output.skipped(report.skipped)
            record["into"], count = str(into), report.added
        text += f"; {count} in {into}"
    if state.counts.errors:
        output.say(f"{folder / 'errors'} says what is wrong with each row")
    output.result(record, text)
    return EXIT_OK


def _load(name: str) -> EmbeddingModel:
    from mmembed.embedder import Embedder

    return Embedder.from_pretrained(name)


def _run(
    job: Job,
    load: Callable[[], EmbeddingModel],
    running: Running,
    progress: Callable[[State], None],
) -> State:
    if running.runner == "ray":
        from mmembed.bulk.ray_runner import run_ray

        if running.shard is not None:
            raise ConfigError("--shard: Ray shares the work out by itself")
        return run_ray(
            job,
            load,
            workers=running.workers,
            gpus_per_worker=running.gpus,
            address=running.address,
            progress=progress,
        )
    mine = None if running.shard is None else share_of(job.shards, *_parsed(running.shard))
    return run_local(job, load, workers=running.workers, mine=mine, progress=progress)


def _parsed(shard: str) -> tuple[int, int]:
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"--shard {shard}: give it as 3/8, the third of eight")
    return int(part), int(parts)


def _told(output: Output) -> Callable[[State], None]:
    """A line whenever there is news, and at most every ten seconds."""
    last = [0.0, -1.0]

    def tell(state: State) -> None:
        now = time.monotonic()
        if state.done == last[1] or (now - last[0] < 10 and state.done < state.shards):
            return
        last[:] = [now, state.done]
        output.say(
            f"{state.done} of {state.shards} shards, {state.counts.rows} rows, "
            f"{state.counts.errors} errors, {state.rows_per_second:.1f} rows/s"
        )

    return tell

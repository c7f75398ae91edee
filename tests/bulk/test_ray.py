"""The same job under Ray Data, whose workers are killed; `make test-full` runs this."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from bulk_model import die, load, load_mortal
from bulk_rows import check, write_lines

from mmembed.bulk import shards as shards_module
from mmembed.bulk.job import Job, Settings
from mmembed.bulk.ray_runner import run_ray
from mmembed.bulk.runner import run_local
from mmembed.bulk.shards import cut
from mmembed.errors import MmembedError

pytest.importorskip("ray", reason="ray is not installed")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(shards_module, "_JSONL_BYTES", 4000)
    write_lines(tmp_path / "in.jsonl", 400)
    job = Job.start(tmp_path / "out", Settings(), cut(str(tmp_path / "in.jsonl")))
    assert len(job.shards) > 3
    return job


def test_a_worker_that_is_killed_at_work_loses_and_doubles_nothing(
    job: Job, tmp_path: Path
) -> None:
    mortal = partial(load_mortal, tmp_path / "killed")
    state = run_ray(job, mortal, workers=2, stall_seconds=200)
    assert (tmp_path / "killed").exists()
    assert (state.done, state.counts.rows) == (len(job.shards), 400)
    check(job, range(400))


def test_workers_that_always_die_end_the_run(job: Job) -> None:
    run_local(job, load, mine=job.shards[:1])
    with pytest.raises(MmembedError, match=r"what is done stays done|failed under Ray"):
        run_ray(job, die, workers=1, stall_seconds=20)
    assert job.total()[0] == 1
    assert run_local(job, load).counts.rows == 400
    check(job, range(400))

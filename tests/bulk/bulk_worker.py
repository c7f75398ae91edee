"""Run by tests in a process of its own, to be killed: ``bulk_worker.py JOB``."""

from __future__ import annotations

import sys
from pathlib import Path

from bulk_model import load_slow

from mmembed.bulk.job import Job
from mmembed.bulk.runner import run_local

if __name__ == "__main__":
    job = Job.open(Path(sys.argv[1]))
    print("running", flush=True)
    run_local(job, load_slow)

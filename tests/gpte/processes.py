"""Scripts that run in two processes on CPUs, as a launcher would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SHOWN = 3000  # last characters of a failed process's errors


def run_in_two(script: Path, *arguments: str | Path, timeout: float = 500.0) -> None:
    """Run a script in two processes until both have ended; neither outlives this call.

    Raises:
        AssertionError: one failed, or one still ran after so many seconds; with its errors.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(2)]
        processes = []
        for rank, log in enumerate(logs):
            with log.open("wb") as errors:
                started = subprocess.Popen(
                    [sys.executable, str(script), *map(str, arguments)],
                    env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stderr=errors,
                )
            processes.append(started)
        try:
            codes = _codes(processes, time.monotonic() + timeout)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        for code, log in zip(codes, logs, strict=True):
            told = log.read_text(encoding="utf-8", errors="replace")[-_SHOWN:]
            assert code is None or code == 0, told
        assert None not in codes, f"still running after {timeout:g} seconds: {codes}"


def _codes(processes: list[subprocess.Popen[bytes]], until: float) -> list[int | None]:
    """Exit codes once all have ended, one has failed, or the time is up; None of one that runs."""
    while True:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes) or time.monotonic() > until:
            return codes
        time.sleep(0.05)

"""How long the README's two commands take in a fresh clone: ``make demo`` and ``make test``.

    python benchmarks/clone_times.py [--only demo]

Both install what they need into the clone, from the package index that pip knows, with an empty
home. What is measured beside the clock is the processor time of all that they start. A call with
--only keeps what another found of the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import RESULTS, facts, write_result

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("demo", "test")


def timed(target: str, clone: Path, home: Path) -> dict[str, float]:
    """Run a target of the Makefile; it must succeed."""
    env = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    env.pop("PYTHONPATH", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(["make", target, f"PYTHON={sys.executable}"], cwd=clone, env=env, check=True)
    taken = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"minutes": round(taken / 60, 1), "processor_minutes": round(processor / 60, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=TARGETS, choices=TARGETS)
    options = parser.parse_args()
    file = RESULTS / "clone_times.json"
    found = json.loads(file.read_text())["fresh_clone"] if file.exists() else {}
    for target in options.only:
        with tempfile.TemporaryDirectory() as folder:
            clone, home = Path(folder) / "clone", Path(folder) / "home"
            home.mkdir()
            command = ["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(clone)]
            subprocess.run(command, check=True)
            found[target] = timed(target, clone, home)
            print(target, found[target], flush=True)
    write_result("clone_times", {"machine": facts(), "fresh_clone": found})


if __name__ == "__main__":
    main()

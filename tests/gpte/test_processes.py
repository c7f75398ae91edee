"""The helper that runs scripts in two processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from processes import run_in_two

SCRIPT = """
import os, sys, time
from pathlib import Path
rank, case, folder = os.environ["RANK"], sys.argv[1], Path(sys.argv[2])
folder.joinpath(rank).write_text(str(os.getpid()))
if rank == "1" and case == "fails":
    while not folder.joinpath("0").exists():
        time.sleep(0.01)
    sys.exit("process 1 is broken")
if case != "ends":
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("case", "timeout", "told"),
    [("ends", 60.0, ""), ("fails", 60.0, "process 1 is broken"), ("waits", 1.0, "still running")],
)
def test_no_process_outlives_the_call(case: str, timeout: float, told: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    if told:
        with pytest.raises(AssertionError, match=told):
            run_in_two(script, case, tmp_path, timeout=timeout)
    else:
        run_in_two(script, case, tmp_path, timeout=timeout)
    found = [
        int(tmp_path.joinpath(rank).read_text()) for rank in "01" if (tmp_path / rank).exists()
    ]
    assert len(found) == 2 or case == "waits"  # which may be over before a process has begun
    assert not any(alive(pid) for pid in found)

"""Damaged files and a full disk: an error that says so, and no other harm."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hash_model import HashModel

from mmembed.errors import InputError, MmembedError
from mmembed.search.index import Index

WAYS: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "overwritten": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("where", ["data/*", "_versions/*.manifest", "_indices/*/*"])
def test_damage_is_named(tmp_path: Path, where: str, way: str) -> None:
    folder = tmp_path / "index"
    with Index.open(folder, HashModel()) as index:
        index.add([f"text {i}" for i in range(30)])
    files = list((folder / "items.lance").glob(where))
    assert files
    for file in files:
        WAYS[way](file)
    if (where, way) == ("_versions/*.manifest", "gone"):  # nothing says that there was an index
        with pytest.raises(InputError, match="holds no index"):
            Index.open(folder, HashModel(), create=False)
        return
    with pytest.raises(MmembedError, match=r"index: its files cannot be read.*index again"):
        Index.open(folder, HashModel(), create=False).search("text 3", 3)


def test_a_full_disk_is_named_and_leaves_the_index_whole(tmp_path: Path) -> None:
    unshare = [shutil.which("unshare") or "unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk of its own can be mounted here")
    worker = Path(__file__).with_name("full_disk_worker.py")
    # Four megabytes that only this process sees, and that go with it.
    mounted = (
        f"mount -t tmpfs -o size=4m none {tmp_path} && exec {sys.executable} {worker} {tmp_path}"
    )
    command = [*unshare, "sh", "-c", mounted]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=250)
    seen = json.loads(done.stdout)
    kind, told = seen["error"]
    assert kind == "StoreFullError"
    assert told.endswith("index: No space left on device: what was written before is whole; "
                         "make room and run it again")  # fmt: skip
    assert seen["items"] % 1024 in (0, 50)  # whole writes
    assert seen["items"] < 3000
    assert seen["found"] == ["text number 7 of many"] * 2
    assert seen["after"] == [3000 - seen["items"], seen["items"], 3000]

"""``kill -9`` at any moment, a second writer, and readers beside a writer."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hash_model import HashModel

from mmembed.search.index import Index
from mmembed.search.lance_store import LanceStore
from mmembed.search.store import StoreLockedError

WORKER = Path(__file__).with_name("adding_worker.py")


def start(index: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(index), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "adding\n"
    return process


def ids_in(path: Path) -> list[str]:
    if not LanceStore.exists(path):
        return []
    return [record.id for record in LanceStore.open(path).scan(fields=[])]


def kill_many_times(path: Path, what: str, kills: int, seed: int) -> list[int]:
    """The number of items after each kill; checks that the index is whole every time."""
    # An untouched run takes about a second and a half; a killed one resumes where it ended.
    delays = random.Random(seed)
    counts = []
    for _ in range(kills):
        process = start(path, what)
        time.sleep(delays.uniform(0.0, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = ids_in(path)
        assert len(found) == len(set(found))
        counts.append(len(found))
        index = Index.open(path, HashModel())
        if found:
            assert len(index.search("text number 7 of many", 5)) == min(5, len(found))
    return counts


def test_ten_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index"
    counts = kill_many_times(path, "5000", kills=10, seed=0)
    assert counts == sorted(counts)  # what was written stays
    process = start(path, "5000")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    added, unchanged, skipped = map(int, output.split())
    assert (added + unchanged, skipped) == (5000, 0)
    assert unchanged == counts[-1]
    found = ids_in(path)
    assert (len(found), len(set(found))) == (5000, 5000)
    index = Index.open(path, HashModel())
    hit = index.search("text number 4321 of many", 1)[0]
    assert (hit.text, hit.metadata) == ("text number 4321 of many", {"number": 4321})
    assert len(index.search("text", 100, filter="number >= 4950")) == 50


def test_kills_while_a_folder_changes(tmp_path: Path) -> None:
    """Documents of several passages, which may be half written when the blow falls."""
    folder = tmp_path / "media"
    folder.mkdir()
    rng = random.Random(1)
    path = folder / ".mmembed"

    def write(number: int, version: int) -> int:
        parts = rng.randint(1, 6)
        text = "\n\n".join(f"doc{number} v{version} part{i} " + "x " * 197 for i in range(parts))
        (folder / f"{number}.txt").write_text(text)
        return parts

    parts = {number: write(number, 0) for number in range(400)}
    kill_many_times(path, str(folder), kills=3, seed=2)
    for number in range(0, 400, 3):
        parts[number] = write(number, 1)
    for number in range(1, 400, 10):
        (folder / f"{number}.txt").unlink()
        del parts[number]
    kill_many_times(path, str(folder), kills=3, seed=3)
    process = start(path, str(folder))
    process.communicate(timeout=120)
    expected = {f"{n}.txt#p={i}" for n, count in parts.items() for i in range(1, count + 1)}
    found = ids_in(path)
    assert (len(found), set(found)) == (len(expected), expected)
    index = Index.open(path, HashModel())
    for number in (0, 2, 399):
        hit = index.search(f"doc{number}", 1, mode="text")[0]
        assert hit.text.startswith(f"doc{number} v{1 if number % 3 == 0 else 0} ")
    assert index.add(folder).unchanged == len(expected)


def test_a_second_process_may_not_write_but_read(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = Index.open(path, HashModel())
    index.add(["one"])
    process = start(path, "500000")  # more than it can write while this test looks on
    try:
        wait_until(lambda: len(index) > 100)
        with pytest.raises(StoreLockedError, match=f"process {process.pid} is writing"):
            index.add(["two"])
        assert index.search("one", 1)[0].text == "one"
    finally:
        process.kill()
        process.wait()
    # The lock of a dead process does not count.
    assert index.add(["two"]).added == 1


def test_readers_follow_a_writer(tmp_path: Path) -> None:
    """Every read sees a whole state, and what one read has seen the next one sees too."""
    path = tmp_path / "index"
    Index.open(path, HashModel()).add(["first of many"])
    reader = Index.open(path, HashModel())
    process = start(path, "5000")
    seen = [1]
    while process.poll() is None:
        ids = [hit.id for hit in reader.search("text number 5 of many", 20)]
        assert len(ids) == len(set(ids))
        assert len(ids) == 20 or seen[-1] < 20
        seen.append(len(reader))
    assert process.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 3  # it did see states in between
    assert len(reader) == 5001


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

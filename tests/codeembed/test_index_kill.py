"""``kill -9`` at random moments of an update."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from word_model import WordModel

from codeembed import CodeIndex

WORKER = Path(__file__).with_name("indexing_worker.py")
Tree = Callable[[Mapping[str, "str | bytes"]], Path]


def source(file: int, version: int) -> str:
    return "\n\n".join(f"def f{file}_{n}(a):\n    return a + {version}" for n in range(12))


def rows(index: CodeIndex) -> dict[str, str]:
    assert index._store is not None
    chunks = index._store.chunks(index._store.chunk_ids().tolist())
    found = [(f"{chunk.path}#{chunk.number}", chunk.text) for chunk in chunks]
    assert len(found) == len(dict(found)), "a row is doubled"
    return dict(found)


def test_kills_lose_and_double_nothing(tree: Tree, tmp_path: Path) -> None:
    rng = random.Random(0)
    root = tree({f"m{n}.py": source(n, 0) for n in range(60)})
    for version in range(1, 5):
        for number in rng.sample(range(60), 40):
            (root / f"m{number}.py").write_text(source(number, version))
        command = [sys.executable, str(WORKER), str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "indexing\n"
        time.sleep(rng.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    index = CodeIndex.open(root, WordModel())
    index.update()
    fresh = CodeIndex.open(root, WordModel(), tmp_path / "fresh")
    fresh.update()
    assert rows(index) == rows(fresh)
    assert index.status()["complete"]

"""Times of codeembed's search beside semble and ripgrep, on the same source trees.

    python benchmarks/code_search.py speed FOLDER --name stdlib [--semble PYTHON --semble-model DIR]
    python benchmarks/code_search.py model2vec FOLDER

``speed`` copies the folder, then times whole commands, each a process of its own: the first answer
from nothing, an answer from an index that is there, and one after a change of one file. Wall and
processor seconds stand side by side, because processor time alone is steady on a busy machine.
What is found is measured by ``code_quality.py``.

semble's own model lives on a hub. Where that cannot be reached, ``--semble-model`` names a
model2vec folder (``model2vec_of`` makes one of mini's static vectors).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, facts, write_result

from codeembed import CodeIndex

_QUERY = "parse command line arguments"


def timed(command: Sequence[str], environment: dict[str, str] | None = None) -> dict[str, float]:
    """Wall and processor seconds and peak memory of a command and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return {
        "wall_s": round(time.perf_counter() - start, 2),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def speed(folder: Path, semble: Path | None, environment: dict[str, str], rounds: int) -> Any:
    commands: dict[str, Callable[[str, Path], list[str]]] = {
        "codeembed": lambda query, root: [
            *(sys.executable, "-m", "codeembed.cli", "search", query, str(root)),
            *("--no-background", "--quiet"),
        ],
        "ripgrep": lambda query, root: ["rg", "-c", query.split()[0], str(root)],
    }
    if semble is not None:
        tool = str(semble.with_name("semble"))
        commands["semble"] = lambda query, root: [tool, "search", query, str(root)]
    if shutil.which("rg") is None:
        del commands["ripgrep"]
    found: dict[str, Any] = {name: {} for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as place:
                root = Path(place) / "root"
                shutil.copytree(folder, root)
                # semble keeps its indexes in the user's cache.
                own = {**environment, "XDG_CACHE_HOME": place, "HOME": place}
                own["HF_HUB_OFFLINE"] = "1"
                steps = found[name]
                steps.setdefault("first_answer", []).append(timed(command(_QUERY, root), own))
                time.sleep(2.5)
                timed(command(_QUERY, root), own)  # takes up what was too young to be sure of
                steps.setdefault("answer", []).append(timed(command(_QUERY, root), own))
                new = root / "zz_new_file.py"
                new.write_text(f"def brand_new_function_{number}():\n    return {number}\n")
                query = f"brand_new_function_{number}"
                steps.setdefault("answer_after_a_change", []).append(
                    timed(command(query, root), own)
                )
                if name == "codeembed":
                    steps.setdefault("in_process", []).append(_in_process(root))
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {
        "files": len(files),
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "systems": found,
    }


def _in_process(root: Path) -> dict[str, float]:
    """Seconds of a long-lived process: an update after a change of one file, and queries."""
    with CodeIndex.open(root) as index:
        index.update(vectors=False)
        index.search(_QUERY)
        (root / "zz_other_file.py").write_text("def another_new_function(): pass\n")
        start, busy = time.perf_counter(), time.process_time()
        index.update(vectors=False)
        wall, processor = time.perf_counter() - start, time.process_time() - busy
        seconds = []
        for _ in range(30):
            start = time.process_time()
            index.search(_QUERY)
            seconds.append(time.process_time() - start)
        chunks = index.status()["chunks"]
    return {
        "chunks": chunks,  # type: ignore[dict-item]
        "update_wall_s": round(wall, 3),
        "update_processor_s": round(processor, 3),
        "query_p50_ms": round(1000 * statistics.median(seconds), 2),
        "query_p95_ms": round(1000 * float(np.percentile(seconds, 95)), 2),
    }


def model2vec_of(folder: Path) -> None:
    """Write what model2vec needs of mini's static vectors: ``table.npy`` and ``tokenizer.json``."""
    from codeembed.reading import _mini_tokenizer, static_of

    static = static_of("mini")
    assert static is not None
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "table.npy", static._table.astype(np.float32) * static._scales[:, None])
    shutil.copyfile(_mini_tokenizer(), folder / "tokenizer.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "model2vec"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--semble", type=Path)
    parser.add_argument("--semble-model", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.what == "model2vec":
        model2vec_of(options.folder)
        return
    model = options.semble_model
    environment = {} if model is None else {"SEMBLE_MODEL_NAME": str(model.absolute())}
    found = speed(options.folder, options.semble, environment, options.rounds)
    file = RESULTS / "code_search.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    own = "mini's static vectors, as a model2vec model (its own model is on a hub)"
    record = {
        **kept,
        "machine": facts("torch", "numpy", "tree-sitter"),
        "semble": {"version": "0.7.0", "model": own},
        "note": "peak_mib of a command smaller than the measuring process is the latter's own",
        f"speed-{options.name}": found,
    }
    write_result("code_search", record)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What codeembed does with a million-line file, a hundred thousand files, repositories in another
and a grammar that hangs.

    python benchmarks/code_scale.py [--lines 1000000] [--files 100000]

Every case is a process of its own: processor seconds, its peak memory, and what came of it. Nothing
here needs a model; vectors would follow at the model's own speed. Cases that are in
benchmarks/results/code_scale.json are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from machine import RESULTS, facts, write_result

from codeembed import CodeIndex
from codeembed.chunk import Chunker
from codeembed.languages import Language
from codeembed.pack_languages import module_of
from codeembed.parse import DEFAULT_TIME_LIMIT, ParseTimeoutError
from codeembed.parse_worker import ParserFailedError, ParseWorker
from codeembed.reading import reading_of
from codeembed.walk import DEFAULT_MAX_BYTES

_IN_A_FOLDER = 100
_REPOSITORIES = 50
_HANGING_FILES = 10
# A younger file may change without its stamp changing; see codeembed/update.py.
_SETTLED_S = 2.5


def million_lines(shape: str, lines: int) -> Any:
    """Cut one file that is longer than an index takes by default."""
    text = _SHAPES[shape](lines).encode()
    reading = reading_of("mini")
    assert reading is not None
    start = time.process_time()
    found = Chunker(reading.count_tokens, reading.max_tokens).chunk(text, "a.py")
    seconds = time.process_time() - start
    kept = sum(len(chunk.text.encode().split()) for chunk in found.chunks)
    return {
        "megabytes": round(len(text) / 1e6, 1),
        "lines": text.count(b"\n"),
        "processor_s": round(seconds, 2),
        "chunks": len(found.chunks),
        "method": str(found.method),
        "most_tokens": max(chunk.tokens for chunk in found.chunks),
        "words_lost": len(text.split()) - kept,
    }


_SHAPES: Mapping[str, Callable[[int], str]] = {
    "statements": lambda lines: "".join(f"value_{i} = compute({i})\n" for i in range(lines)),
    "classes": lambda lines: "".join(
        f"class C{i}:\n" + "".join(f"    def m{j}(self):\n        return {j}\n" for j in range(25))
        for i in range(lines // 51)
    ),
    "one function": lambda lines: "def f():\n" + "".join(f"    x{i} = {i}\n" for i in range(lines)),
}


def left_out(lines: int) -> Any:
    """Index a folder with such a file under the default limit."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "big.py").write_text(_SHAPES["statements"](lines))
        (root / "small.py").write_text("def small(): pass\n")
        start = time.process_time()
        with CodeIndex.open(root) as index:
            report = index.update(vectors=False)
        return {
            "limit_bytes": DEFAULT_MAX_BYTES,
            "processor_s": round(time.process_time() - start, 3),
            "added": report.added,
            "skipped": [[each.path, str(each.reason), each.detail] for each in report.skipped],
        }


def many_files(files: int) -> Any:
    """Index so many small files, again without a change, and after a change of one."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for number in range(files):
            folder = root / f"part{number // _IN_A_FOLDER}"
            folder.mkdir(exist_ok=True)
            (folder / f"file{number}.py").write_text(
                f"import part{number % 97} as other\n\n\ndef function_{number}(value):\n"
                f'    """Do thing {number}."""\n    return other.call(value, {number})\n'
            )
        found: dict[str, Any] = {"files": files}
        with CodeIndex.open(root) as index:
            found["first"] = _updated(index)
            time.sleep(_SETTLED_S)
            found["taken up, too young before"] = _updated(index)
            found["unchanged"] = _updated(index)
            (root / "new.py").write_text("def brand_new(): pass\n")
            found["after a change of one"] = _updated(index)
            index.search("function", mode="lexical")
            start = time.process_time()
            (hit, *_) = index.search(f"function_{files // 2}", 1, mode="lexical")
            found["query_processor_ms"] = round(1000 * (time.process_time() - start), 1)
            found["query_finds"] = hit.path
        return found


def repositories_in_another(count: int) -> Any:
    """Index a repository with others inside it, each of which leaves out files of its own."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / ".git").mkdir()
        (root / ".gitignore").write_text("build/\n")
        for number in range(count):
            inner = root / f"part{number}" / "clone"
            for folder in (inner / ".git", inner / "src", inner / "build"):
                folder.mkdir(parents=True)
            (inner / ".gitignore").write_text("*_made.py\n!build/\n")
            (inner / "src" / "kept.py").write_text(f"def kept_{number}(): pass\n")
            (inner / "src" / "left_made.py").write_text("def left(): pass\n")
            (inner / "build" / "own.py").write_text("def by_its_own_rules(): pass\n")
        start = time.process_time()
        with CodeIndex.open(root) as index:
            report = index.update(vectors=False, workers=1)
            left = index.search("left", 1, mode="lexical")
        return {
            "repositories": count + 1,
            "processor_s": round(time.process_time() - start, 2),
            "added": report.added,
            "found_of_what_they_ignore": len(left),
        }


def hanging_grammar(files: int) -> Any:
    """Give a scanner that loops for ever (COBOL's in the pack, which is not on the list) files."""
    cobol = Language("cobol", (".cob",), module_of("cobol"))
    worker = ParseWorker()
    ends: Counter[str] = Counter()
    start = time.perf_counter()
    for _ in range(files):
        try:
            worker.run("cobol", DEFAULT_TIME_LIMIT, b"x\n", cobol, [1], 10)
            ends["parsed"] += 1
        except ParseTimeoutError:
            ends["stopped"] += 1
        except ParserFailedError:
            ends["given up without a try"] += 1
    seconds = time.perf_counter() - start
    worker.close()
    return {"files": files, "limit_s": DEFAULT_TIME_LIMIT, "wall_s": round(seconds, 1), **ends}


def _updated(index: CodeIndex) -> dict[str, Any]:
    start = time.process_time()
    report = index.update(vectors=False, workers=1)
    return {
        "processor_s": round(time.process_time() - start, 2),
        "added": report.added,
        "unchanged": report.unchanged,
        "chunks": report.chunks,
    }


def apart(case: str, size: int) -> Any:
    """The case in a process of its own, with that process's peak memory."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--case", case, "--size", str(size)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{case} ended with {process.returncode}")
    return {**json.loads(told), "peak_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--case", help="used by the command itself")
    parser.add_argument("--size", type=int, default=0)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(CASES[options.case](options.size)))
        return
    sizes = {
        "many files": options.files,
        "repositories in another": _REPOSITORIES,
        "a grammar that hangs": _HANGING_FILES,
    }
    file = RESULTS / "code_scale.json"
    found = json.loads(file.read_text("utf-8"))["cases"] if file.exists() else {}
    for name in CASES:
        if name in found:
            continue
        found[name] = apart(name, sizes.get(name, options.lines))
        print(name, found[name], flush=True)
        write_result("code_scale", {"machine": facts("tree-sitter", "numpy"), "cases": found})


CASES: Mapping[str, Callable[[int], Any]] = {
    **{
        f"a million lines: {shape}": (lambda size, shape=shape: million_lines(shape, size))
        for shape in _SHAPES
    },
    "a million lines under the default limit": left_out,
    "many files": many_files,
    "repositories in another": repositories_in_another,
    "a grammar that hangs": hanging_grammar,
}


if __name__ == "__main__":
    main()

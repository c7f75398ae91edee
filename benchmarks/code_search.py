"""codeembed's search beside semble, ripgrep, BM25 and plain MiniLM, on the same source trees.

    python benchmarks/code_search.py speed FOLDER --name stdlib [--semble PYTHON --semble-model DIR]
    python benchmarks/code_search.py quality FOLDER --name datasets [--semble ...] [--limit 200]

``speed`` copies the folder, then times whole commands, each a process of its own: the first answer
from nothing, an answer from an index that is there, and one after a change of one file. Wall and
processor seconds stand side by side, because processor time alone is steady on a busy machine.

``quality`` takes docstrings out of a copy of the folder and asks for the functions by them: a hit
is a chunk, not a skeleton, that overlaps the function. nDCG@10, one relevant function a query.
Choose code that no adapter was trained on.

semble's own model lives on a hub. Where that cannot be reached, ``--semble-model`` names a
model2vec folder (``model2vec_of`` makes one of mini's static vectors).
"""

from __future__ import annotations

import argparse
import ast
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
from codeembed.pairs.quality import summary_of, text_problem
from codeembed.results import CodeHit
from codeembed.search import CodeFilter, Question, find
from codeembed.skeleton import SKELETON

_K = 10
_QUERY = "parse command line arguments"
Span = tuple[str, int, int]


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


def without_docstrings(folder: Path, into: Path, limit: int) -> tuple[list[str], list[Span]]:
    """Copy the Python files without functions' docstrings; queries, and where their answers are."""
    queries: list[str] = []
    answers: list[Span] = []
    for file in sorted(folder.rglob("*.py")):
        relative = file.relative_to(folder)
        if "test" in str(relative) or "__pycache__" in relative.parts:
            continue
        source = file.read_text("utf-8", "replace")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        lines = source.splitlines(keepends=True)
        removed = [False] * len(lines)
        wanted: list[tuple[str, int, int]] = []
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            text = ast.get_docstring(node)
            if not text:
                continue
            first = node.body[0]
            assert first.end_lineno is not None
            assert node.end_lineno is not None
            if len(node.body) == 1 or lines[first.lineno - 1].split('"')[0].strip(" rRuU"):
                continue
            for row in range(first.lineno - 1, first.end_lineno):
                removed[row] = True
            summary = summary_of(text)
            long = node.end_lineno - first.end_lineno >= 3
            if long and not isinstance(node, ast.ClassDef) and not text_problem(summary):
                wanted.append((summary, node.lineno, node.end_lineno))
        kept = np.cumsum([0, *(not gone for gone in removed)])
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            "".join(line for line, gone in zip(lines, removed, strict=True) if not gone), "utf-8"
        )
        for summary, start, end in wanted:
            queries.append(summary)
            answers.append((relative.as_posix(), int(kept[start - 1]) + 1, int(kept[end])))
    repeated = {query for query in queries if queries.count(query) > 1}
    rows = [n for n, query in enumerate(queries) if query not in repeated]
    rows = rows[:: max(1, len(rows) // limit)][:limit]
    return [queries[n] for n in rows], [answers[n] for n in rows]


def ndcg(found: Sequence[Sequence[Span]], answers: Sequence[Span]) -> float:
    """Mean over queries of 1 / log2(1 + rank) of the first hit that overlaps the answer."""
    values = []
    for hits, (path, first, last) in zip(found, answers, strict=True):
        ranks = (
            rank
            for rank, (hit, start, end) in enumerate(hits[:_K], start=1)
            if hit == path and start <= last and end >= first
        )
        rank = next(ranks, None)
        values.append(0.0 if rank is None else 1 / np.log2(1 + rank))
    return float(np.mean(values))


def _span(hit: CodeHit) -> Span:
    """Where a hit is; a skeleton is nowhere, since it shows no function's body."""
    return (hit.path, 0, 0) if hit.kind == SKELETON else (hit.path, hit.start_line, hit.end_line)


def quality(
    folder: Path, place: Path, semble: Path | None, environment: dict[str, str], limit: int
) -> Any:
    root = place / "root"
    queries, answers = without_docstrings(folder, root, limit)
    result: dict[str, Any] = {"queries": len(queries), "ndcg10": {}, "query_ms": {}}

    def ask(name: str, search: Callable[[str], list[CodeHit]]) -> None:
        search(queries[0])
        found, seconds = [], []
        for query in queries:
            start = time.process_time()
            hits = search(query)
            seconds.append(time.process_time() - start)
            found.append([_span(hit) for hit in hits])
        result["ndcg10"][name] = round(ndcg(found, answers), 4)
        result["query_ms"][name] = [
            round(1000 * float(np.percentile(seconds, each)), 2) for each in (50, 95)
        ]
        print(name, result["ndcg10"][name], result["query_ms"][name], flush=True)

    with CodeIndex.open(root, store=place / "index") as index:
        result["chunks"] = index.update(vectors=False).chunks

        def words_alone(query: str) -> list[CodeHit]:
            return find(Question(query, None, "hybrid"), _K, CodeFilter(), [index.source()])

        ask("BM25 alone", lambda query: index.search(query, _K, mode="lexical"))
        ask("static vectors alone", lambda query: index.search(query, _K, mode="static"))
        ask("codeembed, first answer: BM25 and static vectors", words_alone)
        if semble is not None:
            result["ndcg10"]["semble"] = _semble(root, queries, answers, semble, environment)
            print("semble", result["ndcg10"]["semble"], flush=True)
        start = time.process_time()
        index.fill()
        result["fill_processor_s"] = round(time.process_time() - start, 1)
        ask("plain MiniLM alone", lambda query: index.search(query, _K, mode="dense"))
        ask("codeembed, complete", lambda query: index.search(query, _K))
    return result


def _semble(
    root: Path,
    queries: list[str],
    answers: list[Span],
    semble: Path,
    environment: dict[str, str],
) -> Any:
    with tempfile.TemporaryDirectory() as place:
        asked = Path(place) / "queries.json"
        asked.write_text(json.dumps(queries))
        runner = Path(__file__).with_name("semble_runner.py")
        done = subprocess.run(
            [str(semble), str(runner), str(root), str(asked), str(_K)],
            env={**os.environ, **environment, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    told = json.loads(done.stdout)
    found = []
    for hits in told["found"]:
        paths = (Path(path) for path, _, _ in hits)
        names = [
            (path.relative_to(root) if path.is_absolute() else path).as_posix() for path in paths
        ]
        found.append([(n, s, e) for n, (_, s, e) in zip(names, hits, strict=True)])
    return round(ndcg(found, answers), 4)


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
    parser.add_argument("what", choices=["speed", "quality", "model2vec"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--semble", type=Path)
    parser.add_argument("--semble-model", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--place", type=Path)
    options = parser.parse_args()
    if options.what == "model2vec":
        model2vec_of(options.folder)
        return
    model = options.semble_model
    environment = {} if model is None else {"SEMBLE_MODEL_NAME": str(model.absolute())}
    if options.what == "speed":
        found = speed(options.folder, options.semble, environment, options.rounds)
    else:
        place = options.place or Path(tempfile.mkdtemp())
        found = quality(options.folder, place, options.semble, environment, options.limit)
    file = RESULTS / "code_search.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    own = "mini's static vectors, as a model2vec model (its own model is on a hub)"
    record = {
        **kept,
        "machine": facts("torch", "numpy", "tree-sitter"),
        "semble": {"version": "0.7.0", "model": own},
        "note": "peak_mib of a command smaller than the measuring process is the latter's own",
        f"{options.what}-{options.name}": found,
    }
    write_result("code_search", record)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

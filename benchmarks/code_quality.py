"""What codeembed's search finds beside semble, BM25 and MiniLM, in code that nothing was tuned on.

    python benchmarks/code_quality.py FOLDER ... [--semble PYTHON --semble-model DIR] [--limit 120]

Takes docstrings out of a copy of each folder and asks for the functions by them: a hit is a chunk,
not a skeleton, that overlaps the function. nDCG@10, one relevant function a query; intervals are
those of 2000 paired bootstrap draws of queries over all folders. The weights of the ranking were
chosen by ``tune_code_ranking.py`` on other folders; choose code that no adapter was trained on.

semble's own model lives on a hub; see ``code_search.py``. Every folder's result is kept in the work
folder, so that a call goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, write_result

from codeembed import CodeIndex
from codeembed.layout import content_of
from codeembed.pairs.quality import summary_of, text_problem
from codeembed.search import CodeFilter, Question, find
from codeembed.skeleton import SKELETON
from mmembed.embedder import Embedder

K = 10
DRAWS = 2000
OURS = "codeembed, complete"
FIRST = "codeembed, first answer"
Span = tuple[str, int, int]
Located = Any
"""A hit or a chunk: both have a path, lines and a kind."""


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


def gains_of(found: Sequence[Sequence[Span]], answers: Sequence[Span]) -> list[float]:
    """nDCG@10 of each query: 1 / log2(1 + rank) of the first hit that overlaps the answer."""
    values = []
    for hits, (path, first, last) in zip(found, answers, strict=True):
        ranks = (
            rank
            for rank, (hit, start, end) in enumerate(hits[:K], start=1)
            if hit == path and start <= last and end >= first
        )
        rank = next(ranks, None)
        values.append(0.0 if rank is None else round(float(1 / np.log2(1 + rank)), 4))
    return values


def span(hit: Located) -> Span:
    """Where a hit is; a skeleton is nowhere, since it shows no function's body."""
    return (hit.path, 0, 0) if hit.kind == SKELETON else (hit.path, hit.start_line, hit.end_line)


def words_alone(index: CodeIndex, query: str) -> list[Located]:
    """What an index answers before any vector of its model is there."""
    return find(Question(query, None, "hybrid"), K, CodeFilter(), [index.source()])


def measured(
    folder: Path, place: Path, semble: Path | None, environment: dict[str, str], limit: int
) -> dict[str, Any]:
    """nDCG@10 of every query by every system."""
    root = place / "root"
    queries, answers = without_docstrings(folder, root, limit)
    values: dict[str, list[float]] = {}

    def ask(name: str, search: Callable[[str], Sequence[Located]]) -> None:
        values[name] = gains_of([[span(hit) for hit in search(q)] for q in queries], answers)
        print(folder.name, name, round(float(np.mean(values[name])), 4), flush=True)

    with CodeIndex.open(root, store=place / "index") as index:
        chunks = index.update(vectors=False).chunks
        ask("BM25 alone", lambda query: index.search(query, K, mode="lexical"))
        ask("static vectors alone", lambda query: index.search(query, K, mode="static"))
        ask(FIRST, lambda query: words_alone(index, query))
        if semble is not None:
            values["semble"] = gains_of(_semble(root, queries, semble, environment), answers)
            print(folder.name, "semble", round(float(np.mean(values["semble"])), 4), flush=True)
        ask("plain MiniLM alone", _plain_minilm(index, queries))
        index.fill()
        ask("mini with its adapter alone", lambda query: index.search(query, K, mode="dense"))
        ask(OURS, lambda query: index.search(query, K))
    return {"queries": len(queries), "chunks": chunks, "values": values}


def _plain_minilm(index: CodeIndex, queries: Sequence[str]) -> Callable[[str], Sequence[Located]]:
    """Search by the vectors of mini's text half without an adapter, which is all-MiniLM-L6-v2."""
    source = index.source()
    chunks = list(source.store.chunks([int(each) for each in source.store.chunk_ids()]))
    model = Embedder.from_pretrained("mini")
    texts = [content_of(chunk.breadcrumb, chunk.text) for chunk in chunks]
    documents = model.encode_document(texts, show_progress=False)
    asked = model.encode_query(list(queries), show_progress=False)
    scores = dict(zip(queries, np.asarray(asked) @ np.asarray(documents).T, strict=True))
    return lambda query: [chunks[at] for at in np.argsort(-scores[query], kind="stable")[:K]]


def _semble(
    root: Path, queries: list[str], semble: Path, environment: dict[str, str]
) -> list[list[Span]]:
    with tempfile.TemporaryDirectory() as place:
        asked = Path(place) / "queries.json"
        asked.write_text(json.dumps(queries))
        runner = Path(__file__).with_name("semble_runner.py")
        done = subprocess.run(
            [str(semble), str(runner), str(root), str(asked), str(K)],
            env={**os.environ, **environment, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    found = []
    for hits in json.loads(done.stdout)["found"]:
        paths = (Path(path) for path, _, _ in hits)
        names = [
            (path.relative_to(root) if path.is_absolute() else path).as_posix() for path in paths
        ]
        found.append([(n, s, e) for n, (_, s, e) in zip(names, hits, strict=True)])
    return found


def summary(folders: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over all queries, and how far ours are above each other system, with intervals."""
    systems = list(next(iter(folders.values()))["values"])
    pooled = {
        name: np.concatenate([np.asarray(each["values"][name]) for each in folders.values()])
        for name in systems
    }
    size = len(pooled[OURS])
    picks = np.random.default_rng(0).integers(0, size, (DRAWS, size))

    def told(values: Any) -> dict[str, Any]:
        low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
        return {
            "mean": round(float(values.mean()), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
        }

    return {
        "queries": size,
        "ndcg10": {name: told(values) for name, values in pooled.items()},
        "above": {
            own: {
                name: told(pooled[own] - values)
                for name, values in pooled.items()
                if name not in (FIRST, OURS)
            }
            for own in (FIRST, OURS)
        },
        "folders": {
            name: {
                "queries": each["queries"],
                "chunks": each["chunks"],
                "ndcg10": {s: round(float(np.mean(v)), 4) for s, v in each["values"].items()},
            }
            for name, each in folders.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--semble", type=Path)
    parser.add_argument("--semble-model", type=Path)
    parser.add_argument("--limit", type=int, default=120, help="queries a folder")
    parser.add_argument("--work", type=Path, default=Path("runs/code_quality"))
    options = parser.parse_args()
    model = options.semble_model
    environment = {} if model is None else {"SEMBLE_MODEL_NAME": str(model.absolute())}
    found = {}
    for folder in options.folders:
        place = options.work / folder.name
        kept = place / "values.json"
        if not kept.exists():
            values = measured(folder, place, options.semble, environment, options.limit)
            kept.write_text(json.dumps(values), encoding="utf-8")
        found[folder.name] = json.loads(kept.read_text("utf-8"))
    result = {
        "machine": facts("torch", "numpy", "tree-sitter"),
        "semble": {
            "version": "0.7.0",
            "model": "mini's static vectors, as a model2vec model (its own model is on a hub)",
        },
        **summary(found),
    }
    write_result("code_quality", result)
    print(json.dumps(result["ndcg10"], indent=1))


if __name__ == "__main__":
    main()

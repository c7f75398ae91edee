"""Code found by words; ``codeembed eval`` has more sets, with the metrics of their papers."""

from __future__ import annotations

from pathlib import Path

from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Retrieval, Task

__all__ = ["BENCHMARKS"]

_KINDS = ("docstring", "comment", "name")


def _code(folder: Path) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for kind in _KINDS:
        rows = rows_of(folder / f"code/{kind}-test.jsonl.gz")
        documents = list(dict.fromkeys(row["positive"] for row in rows))
        place = {text: i for i, text in enumerate(documents)}
        gains: dict[str, dict[int, float]] = {}
        for row in rows:
            gains.setdefault(row["query"], {})[place[row["positive"]]] = 1.0
        tasks[kind] = Retrieval(list(gains), documents, list(gains.values()))
    return tasks


def _cosqa(folder: Path) -> dict[str, Task]:
    """Functions of equal text count as one, because the corpus repeats them and marks one."""
    codes = rows_of(folder / "cosqa/codes.jsonl.gz")
    documents = list(dict.fromkeys(row["code"] for row in codes))
    place = {text: i for i, text in enumerate(documents)}
    text = {row["idx"]: row["code"] for row in codes}
    asked = rows_of(folder / "cosqa/retrieval_dev.jsonl.gz")
    gains = [{place[text[row["retrieval_idx"]]]: 1.0} for row in asked]
    return {"python": Retrieval([row["query"] for row in asked], documents, gains, "mrr")}


BENCHMARKS = (
    Benchmark(
        "code",
        "the Python standard library: functions by docstring or name, statements by comment",
        "PSF-2.0",
        "test",
        "https://www.python.org",
        ("code/docstring-test.jsonl.gz",),
        ("text",),
        _code,
    ),
    Benchmark(
        "cosqa",
        "web queries and Python functions",
        "see source; research use",
        "dev",
        "https://github.com/microsoft/CodeXGLUE",
        ("cosqa",),
        ("text",),
        _cosqa,
    ),
)

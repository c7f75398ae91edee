"""The open samples of this project: every kind of task, each alone and over one mixed corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Retrieval, Task

__all__ = ["BENCHMARKS", "TASKS"]

TASKS = (
    *("T-I", "I-T", "I-I", "IT-I", "IT-T", "T-IT", "IT-IT"),
    *("T-V", "V-T", "VT-V", "T-VD"),
)
"""T text, I image, V video, VD page of a document; the query before the dash, the target behind."""

_MEDIA = ("image", "video", "document")


def _samples(folder: Path) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for name, rows in _rows(folder).items():
        targets = _targets(rows)
        tasks[name] = _retrieval(rows, targets, list(targets.values()))
    return tasks


def _mixed(folder: Path) -> dict[str, Task]:
    """Each kind of task, but every target of every kind is a candidate."""
    rows = _rows(folder)
    targets = _targets([row for each in rows.values() for row in each])
    documents = list(targets.values())
    return {name: _retrieval(each, targets, documents) for name, each in rows.items()}


def _rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    home = folder / "multimodal"
    return {
        name: [
            {side: _placed(row[side], home) for side in ("query", "positive")}
            for row in rows_of(home / f"{name}-test.jsonl")
        ]
        for name in TASKS
    }


def _placed(item: Any, home: Path) -> Any:
    """The item with its media's paths made whole."""
    if isinstance(item, str):
        return item
    return {key: str(home / value) if key in _MEDIA else value for key, value in item.items()}


def _targets(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {_key(row["positive"]): row["positive"] for row in rows}


def _retrieval(
    rows: list[dict[str, Any]], targets: Mapping[str, Any], documents: list[Any]
) -> Retrieval:
    place = {key: i for i, key in enumerate(targets)}
    gains: dict[str, dict[int, float]] = {}
    queries = {}
    for row in rows:
        key = _key(row["query"])
        queries[key] = row["query"]
        gains.setdefault(key, {})[place[_key(row["positive"])]] = 1.0
    # A query that is also a target must not find itself.
    apart = [place.get(key, -1) for key in queries]
    return Retrieval(list(queries.values()), documents, list(gains.values()), "ndcg@10", apart)


def _key(item: Any) -> str:
    return json.dumps(item, sort_keys=True, ensure_ascii=False)


_LICENCE = "CC BY 4.0, MIT, Unlicense, CC BY 3.0, OFL-1.1: see data/samples"

BENCHMARKS = (
    Benchmark(
        "samples",
        "every kind of task of the multimodal benchmarks, over this project's samples",
        _LICENCE,
        "test",
        "data/multimodal",
        ("multimodal",),
        ("text", "image", "video", "document"),
        _samples,
    ),
    Benchmark(
        "mixed",
        "the same queries over one corpus of texts, images, clips, pages and fused items",
        _LICENCE,
        "test",
        "data/multimodal",
        ("multimodal",),
        ("text", "image", "video", "document"),
        _mixed,
    ),
)

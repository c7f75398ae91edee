"""Runs on disk: a measurement with its curves and its failures, one JSON file each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.errors import InputError
from mmembed.evaluation.benchmarks.registry import Result, measure, read_benchmark
from mmembed.evaluation.benchmarks.tasks import Encoder, Retrieval, Sides, Task
from mmembed.evaluation.curves import cut_curve, default_cuts, quantisation_curve, truncated
from mmembed.inputs.items import VIDEO_SUFFIXES

__all__ = ["failures", "measure_and_save", "read_runs", "save_json", "save_record"]

_FAILURES = 8
_SHOWN = 3
_MEDIA = ("image", "video", "document")


def measure_and_save(
    name: str,
    model: Encoder,
    data: Path | None,
    folder: Path,
    subsets: tuple[str, ...] = (),
    dim: int | None = None,
    most: int | None = None,
) -> tuple[Result, Path]:
    """Measure as :func:`measure` does, and keep the run for reports and comparisons.

    The record holds the result, the main metric of each query, the scores by dimensions and by
    bits, and the queries that failed worst with what was found in their place.

    Returns:
        The result, and the file ``FOLDER/BENCHMARK--MODEL.json``, which replaces an older one.
    """
    kept: list[Sides] = []

    def keep(sides: Sides) -> Sides:
        kept.append(sides if dim is None else truncated(sides, dim))
        return kept[-1]

    result = measure(name, model, data, subsets=subsets, transform=keep, most=most)
    every = read_benchmark(name, data, most)
    tasks = {key: task for key, task in every.items() if key in result.subsets}
    record = {"kind": "eval", **result.as_run()}
    record["dim"] = int(kept[0][0].shape[1])
    record["curves"] = _curves(list(tasks.values()), kept)
    record["failures"] = {
        key: failures(task, sides)
        for (key, task), sides in zip(tasks.items(), kept, strict=True)
        if isinstance(task, Retrieval)
    }
    return result, save_record(record, folder, name, result.model)


def _curves(tasks: Sequence[Task], kept: Sequence[Sides]) -> dict[str, dict[str, float]]:
    """Means over the subsets of the main metric."""
    cuts = default_cuts(kept[0][0].shape[1])
    by_dim: dict[str, list[float]] = {}
    by_bits: dict[str, list[float]] = {}
    for task, sides in zip(tasks, kept, strict=True):
        for dim, score in cut_curve(task, sides, cuts).items():
            by_dim.setdefault(str(dim), []).append(score)
        for bits, score in quantisation_curve(task, sides).items():
            by_bits.setdefault(bits, []).append(score)
    return {
        "dimensions": {key: round(float(np.mean(found)), 6) for key, found in by_dim.items()},
        "quantisation": {key: round(float(np.mean(found)), 6) for key, found in by_bits.items()},
    }


def failures(task: Retrieval, sides: Sides, most: int = _FAILURES) -> list[dict[str, Any]]:
    """The queries whose first relevant document ranks lowest, worst first.

    Each is ``{"query", "rank", "wanted", "found"}``: items as ``{"text", "image", ...}`` with paths
    as text, and ``found`` the documents that ranked first in place of the wanted one.
    """
    scores, gains = task.matrices(sides)
    relevant = gains > 0
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = 1 + ((scores >= best) & ~relevant).sum(axis=1)
    worst = [int(row) for row in np.argsort(-ranks, kind="stable")[:most] if ranks[row] > 1]
    return [
        {
            "query": _told(task.queries[row]),
            "rank": int(ranks[row]),
            "wanted": _told(
                task.documents[int(np.argmax(np.where(relevant[row], scores[row], -9.0)))]
            ),
            "found": [_told(task.documents[i]) for i in np.argsort(-scores[row])[:_SHOWN]],
        }
        for row in worst
    ]


def save_record(record: Mapping[str, Any], folder: Path, name: str, model: str) -> Path:
    """Write a record as ``FOLDER/NAME--MODEL.json``, whole or not at all; its path."""
    label = re.sub(r"[^\w.-]+", "-", Path(model).name or "model").strip("-")
    return save_json(record, folder / f"{name}--{label}.json")


def save_json(record: Mapping[str, Any], file: Path) -> Path:
    """Write a record to a file, whole or not at all; the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    return file


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, in the order of their names.

    Raises:
        InputError: there are none, or a file is no record.
    """
    runs = []
    for file in sorted(folder.glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["kind"] not in ("eval", "probe"):
                raise KeyError("kind")
        except (ValueError, KeyError, TypeError) as error:
            hint = "keep only files of mmembed eval --save and mmembed probe --save in this folder"
            raise InputError(str(file), "is no saved run", hint) from error
        runs.append(record)
    if not runs:
        raise InputError(str(folder), "holds no runs", "make one: mmembed eval NAME --save FOLDER")
    return runs


def _told(item: Any) -> dict[str, str]:
    """An item as text and whole paths, so that a report shows its pictures from anywhere."""
    if isinstance(item, Path):
        kind = "video" if item.suffix.lower() in VIDEO_SUFFIXES else "image"
        return {kind: str(item.absolute())}
    if isinstance(item, Mapping):
        media = {key: str(Path(item[key]).absolute()) for key in _MEDIA if key in item}
        return media | ({"text": item["text"]} if "text" in item else {})
    return {"text": str(item)}

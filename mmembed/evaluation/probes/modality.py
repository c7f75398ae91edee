"""How far apart a model keeps texts and images, and whether it brings what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.benchmarks.samples import TASKS
from mmembed.evaluation.benchmarks.tasks import Array, Retrieval
from mmembed.evaluation.probes.finding import (
    Finding,
    Instructable,
    Probe,
    needs_modalities,
    unit,
)

__all__ = ["PROBES", "modality_gap", "modality_of", "obedience"]

_WORDS = {
    "text": "Find a text that goes with this: ",
    "image": "Find a picture that goes with this: ",
    "video": "Find a video clip that goes with this: ",
    "document": "Find a page of a document that answers this: ",
}


def modality_gap(texts: Array, images: Array) -> dict[str, float]:
    """The gap between the vectors of pairs ``(n, d)``.

    Returns:
        ``gap``: distance of the two means of unit vectors. ``separable``: accuracy of telling the
        modalities apart by the direction of the gap, learned on one half and tried on the other;
        0.5 is no gap. ``matched`` and ``unmatched``: mean cosines. ``alignment``: mean squared
        distance of pairs. ``uniformity_*``: log of the mean Gaussian potential (Wang and Isola,
        2020), lower is more even.
    """
    a, b = unit(texts), unit(images)
    cosines = a @ b.T
    own = np.eye(len(a), dtype=bool)
    return {
        "gap": float(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))),
        "separable": _separable(a, b),
        "matched": float(cosines[own].mean()),
        "unmatched": float(cosines[~own].mean()),
        "alignment": float(((a - b) ** 2).sum(axis=1).mean()),
        "uniformity_text": _uniformity(a),
        "uniformity_image": _uniformity(b),
    }


def obedience(tasks: Mapping[str, Retrieval], model: Instructable) -> dict[str, dict[str, float]]:
    """For each task over one mixed corpus, how often the first hit has the wanted modality.

    Returns:
        By task: ``plain`` without, and ``told`` with an instruction that names the modality;
        ``chance``: its share of the corpus; ``right`` and ``right_told``: hit@1.
    """
    any_task = next(iter(tasks.values()))
    documents = unit(model.encode_document(any_task.documents))
    kinds = np.array([modality_of(item) for item in any_task.documents])
    found = {}
    for name, task in tasks.items():
        wanted = kinds[[next(iter(one)) for one in task.gains]]
        row = {"chance": float(np.mean([(kinds == kind).mean() for kind in wanted]))}
        told = [_WORDS[str(kind)] for kind in wanted]
        for label, queries in (
            ("plain", model.encode_query(task.queries)),
            ("told", _told(model, task.queries, told)),
        ):
            scores, gains = task.matrices((unit(queries), documents))
            first = scores.argmax(axis=1)
            row[label] = float((kinds[first] == wanted).mean())
            hits = gains[np.arange(len(first)), first] > 0
            row["right" if label == "plain" else "right_told"] = float(hits.mean())
        found[name] = row
    return found


def modality_of(item: Any) -> str:
    """The modality of an item that stands for it: its medium, or text without one."""
    if isinstance(item, Mapping):
        return next((kind for kind in ("image", "video", "document") if kind in item), "text")
    return "image" if isinstance(item, Path) else "text"


def _told(model: Instructable, queries: Sequence[Any], told: Sequence[str]) -> Array:
    """Queries with an instruction each."""
    out: list[Any] = [None] * len(queries)
    for words in dict.fromkeys(told):
        rows = [i for i, one in enumerate(told) if one == words]
        vectors = model.encode_query([queries[i] for i in rows], instruction=words)
        for i, vector in zip(rows, vectors, strict=True):
            out[i] = vector
    return np.stack(out)


def _separable(a: Array, b: Array) -> float:
    right = []
    for train, test in (
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(1, None, 2), slice(0, None, 2)),
    ):
        first, second = a[train].mean(axis=0), b[train].mean(axis=0)
        middle = (first + second) / 2
        right += [*((a[test] - middle) @ (first - second) > 0)]
        right += [*((b[test] - middle) @ (first - second) < 0)]
    return float(np.mean(right))


def _uniformity(vectors: Array) -> float:
    squares = 2.0 - 2.0 * (vectors @ vectors.T)
    pairs = squares[np.triu_indices(len(vectors), 1)]
    return float(np.log(np.exp(-2.0 * pairs).mean()))


def _run_gap(model: Instructable, data: Path) -> Finding:
    needs_modalities(model, "text", "image")
    task: Any = read_benchmark("samples", data)["T-I"]
    pairs = [
        (q, task.documents[next(iter(g))]) for q, g in zip(task.queries, task.gains, strict=True)
    ]
    texts = model.encode_document([text for text, _ in pairs])
    images = model.encode_document([image for _, image in pairs])
    return Finding(modality_gap(np.asarray(texts), np.asarray(images)))


def _run_obedience(model: Instructable, data: Path) -> Finding:
    needs_modalities(model, "text", "image", "video", "document")
    mixed: Any = read_benchmark("mixed", data)
    found = obedience({name: mixed[name] for name in TASKS}, model)
    names = ("chance", "plain", "told", "right", "right_told")
    means = {name: float(np.mean([row[name] for row in found.values()])) for name in names}
    return Finding(means, {"by task": found})


PROBES = (
    Probe(
        "modality-gap",
        "distance between texts and images that mean the same",
        "Liang et al., 2022, Mind the Gap (NeurIPS)",
        "separable 0.5 and gap 0: no gap; separable 1.0: a line tells texts from images",
        ("multimodal",),
        _run_gap,
    ),
    Probe(
        "target-modality",
        "whether the first hit over a mixed corpus has the modality that was asked for",
        "Wei et al., 2024, UniIR (ECCV)",
        "plain: without, told: with words that name the modality; chance: its share of the corpus",
        ("multimodal",),
        _run_obedience,
    ),
)

"""Where in a long document a fact may stand and still be found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe, unit

__all__ = ["PLACES", "PROBES", "placed"]

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
_AROUND = 4
_QUERIES = 60


def placed(wanted: str, others: list[str], place: float) -> str:
    """A document of one wanted text among others, at a share of their number (0 first, 1 last)."""
    at = round(place * len(others))
    return "\n".join([*others[:at], wanted, *others[at:]])


def _run(model: Instructable, data: Path) -> Finding:
    """A definition among others at several places, and the definition alone as the control."""
    task: Any = read_benchmark("books", data)["terms"]
    rows = [
        (query, next(iter(gain))) for query, gain in zip(task.queries, task.gains, strict=True)
    ][:_QUERIES]
    texts = list(task.documents)
    used = {own for _, own in rows}
    fillers = [text for i, text in enumerate(texts) if i not in used]
    queries = unit(model.encode_query([query for query, _ in rows]))
    alone = unit(model.encode_document([texts[own] for _, own in rows]))
    curve: dict[str, dict[str, float]] = {}
    for place in PLACES:
        documents = []
        for i, (_, own) in enumerate(rows):
            start = i * _AROUND % max(1, len(fillers) - _AROUND)
            documents.append(placed(texts[own], fillers[start : start + _AROUND], place))
        vectors = unit(model.encode_document(documents))
        scores = queries @ vectors.T
        curve[f"{place:.2f}"] = {
            "hit@1": float((scores.argmax(axis=1) == np.arange(len(rows))).mean()),
            "cosine_to_text_alone": float((vectors * alone).sum(axis=1).mean()),
        }
    hits = [row["hit@1"] for row in curve.values()]
    near = [row["cosine_to_text_alone"] for row in curve.values()]
    figures = {
        "first_minus_last_hit@1": hits[0] - hits[-1],
        "first_minus_last_cosine": near[0] - near[-1],
        "worst_hit@1": min(hits),
        "alone_hit@1": float(((queries @ alone.T).argmax(axis=1) == np.arange(len(rows))).mean()),
    }
    return Finding(figures, {"by place": curve})


PROBES = (
    Probe(
        "position-bias",
        "whether a fact at the end of a long document is found as one at its beginning",
        "Coelho et al., 2024, Dwell in the Beginning (ACL)",
        "first minus last 0: the place does not matter; above 0: beginnings are preferred",
        ("text/terms-test.jsonl.gz",),
        _run,
    ),
)

"""Whether an instruction changes what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.benchmarks.tasks import Array
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe, unit
from mmembed.gpte.metrics import spearman

__all__ = ["PROBES", "ranking_change"]

_INSTRUCTIONS = {
    "none": "",
    "meaning": "Find the definition of this term: ",
    "opposite": "Find a text that has nothing to do with this: ",
    "code": "Find source code that does this: ",
}


def ranking_change(
    queries: Mapping[str, Array], documents: Array, depth: int = 10
) -> dict[str, float]:
    """How rankings of the same queries differ from one instruction to another.

    Args:
        queries: ``(q, d)`` vectors by instruction, of the same queries.
        documents: ``(n, d)`` vectors.
        depth: how many first documents are compared.

    Returns:
        ``overlap``: mean share of common documents among the first ``depth``; 1 is no change.
        ``correlation``: mean Spearman of all scores. ``moved``: mean distance of query vectors.
    """
    scores = {name: unit(one) @ unit(documents).T for name, one in queries.items()}
    first = {
        name: np.argsort(-one, axis=1, kind="stable")[:, :depth] for name, one in scores.items()
    }
    overlaps, correlations, moved = [], [], []
    for a, b in combinations(queries, 2):
        for row in range(len(scores[a])):
            overlaps.append(len(set(first[a][row]) & set(first[b][row])) / depth)
            correlations.append(spearman(scores[a][row], scores[b][row]))
        moved.append(np.linalg.norm(unit(queries[a]) - unit(queries[b]), axis=1).mean())
    return {
        "overlap": float(np.mean(overlaps)),
        "correlation": float(np.mean(correlations)),
        "moved": float(np.mean(moved)),
    }


def _run(model: Instructable, data: Path) -> Finding:
    """Terms ask over a corpus of definitions, first paragraphs and code."""
    books, code = read_benchmark("books", data), read_benchmark("code", data)
    corpora: dict[str, Sequence[Any]] = {
        "meaning": books["terms"].documents,  # type: ignore[attr-defined]
        "code": code["docstring"].documents,  # type: ignore[attr-defined]
    }
    groups = np.array([name for name, texts in corpora.items() for _ in texts])
    documents = np.asarray(model.encode_document([t for texts in corpora.values() for t in texts]))
    asked = list(books["terms"].queries)[:100]  # type: ignore[attr-defined]
    queries = {
        name: np.asarray(model.encode_query(asked, instruction=words or None))
        for name, words in _INSTRUCTIONS.items()
    }
    table = {}
    for name, vectors in queries.items():
        first = groups[(unit(vectors) @ unit(documents).T).argmax(axis=1)]
        table[name] = {kind: float((first == kind).mean()) for kind in corpora}
    return Finding(ranking_change(queries, documents), {"first hit by instruction": table})


PROBES = (
    Probe(
        "instructions",
        "whether the same query with another instruction ranks otherwise",
        "Weller et al., 2025, FollowIR (NAACL)",
        "overlap 1: instructions are ignored; the table shows whether they are followed",
        ("text/terms-test.jsonl.gz", "code/docstring-test.jsonl.gz"),
        _run,
    ),
)

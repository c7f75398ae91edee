"""From a model and a set to MRR, nDCG@10 and MAP@R."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codeembed.evaluation.sets import RetrievalSet
from codeembed.lexical import BM25
from codeembed.tokenize import words
from mmembed.errors import InputError
from mmembed.gpte.metrics import bootstrap_interval, mrr, ndcg

__all__ = ["Measured", "Scorer", "bm25_scores", "map_at_r", "measure", "vector_scores"]

Array = np.ndarray[Any, np.dtype[Any]]
Scorer = Callable[[Sequence[str], Sequence[str]], Array]
"""``(q, n)`` scores of queries against documents; higher is better."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over the queries of a set, from 0 to 1.

    Attributes:
        mrr_distinct: MRR where documents of equal text count as one, as in CoSQA, whose corpus
            repeats documents and marks one of them.
        ndcg10_interval: 95 % bootstrap interval of nDCG@10 over queries.
    """

    name: str
    queries: int
    documents: int
    mrr: float
    mrr_distinct: float
    ndcg10: float
    map_r: float
    ndcg10_interval: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def map_at_r(scores: Array, relevant: Array) -> Array:
    """``(q,)`` MAP@R (Musgrave et al., 2020): precision summed over the hits among the first R.

    R is the number of documents that answer the query, and what the sum is divided by; CodeXGLUE
    measures POJ-104 so. Ties are counted against the model.

    Args:
        scores: ``(q, n)``.
        relevant: ``(q, n)`` bool.

    Raises:
        InputError: a query has no relevant document.
    """
    relevant = np.asarray(relevant, dtype=bool)
    counts = relevant.sum(axis=1)
    if (counts == 0).any():
        row = int(np.flatnonzero(counts == 0)[0])
        raise InputError(f"query {row}", "has no relevant document", "leave it out")
    order = np.lexsort((relevant, -scores), axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1) / places
    inside = hits & (places[None, :] <= counts[:, None])
    return np.asarray((precision * inside).sum(axis=1) / counts)


def measure(found: RetrievalSet, scorer: Scorer) -> Measured:
    """Measure a scorer on a set."""
    scores = np.asarray(scorer(found.queries, found.documents), dtype=np.float32)
    relevant = np.zeros(scores.shape, dtype=bool)
    for row, answers in enumerate(found.relevant):
        relevant[row, list(answers)] = True
    if found.own:
        # Below every other score, and finite, as the metrics want it.
        np.fill_diagonal(scores, scores.min() - 1.0)
    # No array of the texts, where each would take the room of the longest.
    numbers = {text: number for number, text in enumerate(dict.fromkeys(found.documents))}
    same = np.array([numbers[text] for text in found.documents])
    distinct = np.zeros(scores.shape, dtype=bool)
    for row, answers in enumerate(found.relevant):
        distinct[row] = np.isin(same, same[list(answers)])
    if found.own:
        np.fill_diagonal(distinct, False)
    values = ndcg(scores, relevant, 10)
    return Measured(
        found.name,
        len(found.queries),
        len(found.documents),
        float(mrr(scores, relevant).mean()),
        float(mrr(scores, distinct).mean()),
        float(values.mean()),
        float(map_at_r(scores, relevant).mean()),
        bootstrap_interval(values),
    )


def vector_scores(model: Any, task: str | None = None) -> Scorer:
    """Cosines by an embedder.

    Args:
        model: A :class:`mmembed.embedder.Embedder`.
        task: The adapter that reads queries and documents.
    """

    def score(queries: Sequence[str], documents: Sequence[str]) -> Array:
        options: dict[str, Any] = {"task": task, "show_progress": False}
        # A text that is nothing but white space has no vector, and no meaning either.
        sides = [[text if text.strip() else "?" for text in side] for side in (queries, documents)]
        second = _unit(model.encode_document(sides[1], **options))
        if sides[0] == sides[1] and _reads_both_alike(model):
            return np.asarray(second @ second.T)
        return np.asarray(_unit(model.encode_query(sides[0], **options)) @ second.T)

    return score


def _reads_both_alike(model: Any) -> bool:
    """Whether queries and documents have the same prompt, so that their vectors are the same."""
    prompts = getattr(getattr(model, "config", None), "prompts", None)
    return prompts is not None and prompts.get("query", "") == prompts.get("document", "")


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> Array:
    """BM25 over words and the parts of identifiers."""
    index = BM25()
    index.add([words(text) for text in documents])
    return np.stack([index.scores(words(query)) for query in queries])


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

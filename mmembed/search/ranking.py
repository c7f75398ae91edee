"""The steps of a search over a store, and how their results are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmembed.search.filters import FilterLike
from mmembed.search.fusion import reciprocal_rank_fusion
from mmembed.search.store import Record, StoreHit, Vector, VectorStore

__all__ = ["Ranked", "rank_dense", "rank_hybrid", "rank_text", "similarities"]

# Each step of a hybrid search looks deeper than k, so that the lists it joins overlap.
_POOL_FACTOR = 4
_MIN_POOL = 50


@dataclass(frozen=True, slots=True)
class Ranked:
    """A record, the score it is ranked by, and the score of each step that saw it."""

    record: Record
    score: float
    scores: dict[str, float]


def rank_dense(
    store: VectorStore, vector: Vector, k: int, where: FilterLike | None, min_score: float | None
) -> list[Ranked]:
    """The best ``k`` by cosine similarity, none of them below ``min_score``."""
    return _ranked("dense", store.search(vector, k, where), min_score)


def rank_text(
    store: VectorStore, words: str, k: int, where: FilterLike | None, min_score: float | None
) -> list[Ranked]:
    """The best ``k`` by BM25, none of them below ``min_score``."""
    return _ranked("text", store.search_text(words, k, where), min_score)


def rank_hybrid(
    store: VectorStore,
    vector: Vector,
    words: str,
    k: int,
    where: FilterLike | None,
    min_score: float | None,
) -> list[Ranked]:
    """The best ``k`` of both lists by reciprocal rank fusion.

    ``min_score`` is a cosine similarity, since a fused score says nothing about how well an item
    fits.
    """
    pool = max(_MIN_POOL, _POOL_FACTOR * k)
    dense = store.search(vector, pool, where)
    text = store.search_text(words, pool, where)
    records = {hit.record.id: hit.record for hit in (*dense, *text)}
    words_score = {hit.record.id: hit.score for hit in text}
    similarity = {hit.record.id: hit.score for hit in dense}
    # What only the words have found has a similarity too.
    unseen = [key for key in words_score if key not in similarity]
    similarity |= similarities(vector, store.get(unseen, vectors=True))
    ranked = []
    for key, score in reciprocal_rank_fusion([_ids(dense), _ids(text)]):
        # A record deleted between the searches has no similarity any more.
        if key not in similarity or (min_score is not None and similarity[key] < min_score):
            continue
        scores = {"rrf": score, "dense": similarity[key]}
        if key in words_score:
            scores["text"] = words_score[key]
        ranked.append(Ranked(records[key], score, scores))
    return ranked[:k]


def _ranked(step: str, hits: Sequence[StoreHit], min_score: float | None) -> list[Ranked]:
    return [
        Ranked(hit.record, hit.score, {step: hit.score})
        for hit in hits
        if min_score is None or hit.score >= min_score
    ]


def similarities(vector: Vector, records: Mapping[str, Record]) -> dict[str, float]:
    """Cosine similarity of ``vector`` with records that were read with theirs."""
    length = np.linalg.norm(vector)
    return {
        key: float(each.vector @ vector / (np.linalg.norm(each.vector) * length))
        for key, each in records.items()
        if each.vector is not None
    }


def _ids(hits: Sequence[StoreHit]) -> list[str]:
    return [hit.record.id for hit in hits]

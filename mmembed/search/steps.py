"""The second and third step of a search: MaxSim over token vectors, and a reranker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from mmembed.inputs.items import Item, ItemLike, TextPart, parse_item
from mmembed.search.filters import FilterLike, In
from mmembed.search.fusion import reciprocal_rank_fusion
from mmembed.search.late import TokenStorage
from mmembed.search.layout import Location
from mmembed.search.ranking import Ranked, similarities
from mmembed.search.results import uri_of
from mmembed.search.store import Record, Vector, VectorStore

__all__ = ["PairModel", "item_behind", "rank_all_late", "rank_late", "rerank"]

_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


class PairModel(Protocol):
    """A model that reads query and document together; ``mmembed.Reranker`` satisfies it."""

    def score(
        self,
        query: ItemLike,
        documents: Iterable[ItemLike],
        *,
        on_error: Literal["raise", "none"] = "raise",
    ) -> _Float32:
        """Relevance of each document, ``(n,)``; NaN for one that cannot be read."""
        ...


def rank_late(
    store: VectorStore,
    storage: TokenStorage,
    tokens: _Float32,
    vector: Vector,
    first: Sequence[Ranked],
    candidates: int,
    where: FilterLike | None,
) -> list[Ranked]:
    """The candidates by MaxSim, best first.

    Candidates are the first step's hits and the records whose summaries fit best, ``candidates``
    in all, joined by reciprocal rank fusion.
    """
    by_summary = store.search_summary(storage.encoding.query(tokens), candidates, where)
    known = {each.record.id: each for each in first}
    found = {hit.record.id: hit for hit in by_summary}
    fused = reciprocal_rank_fusion([list(known), list(found)])[:candidates]
    chosen = [key for key, _ in fused]
    payloads = dict(store.scan_tokens(In("id", tuple(chosen))))
    chosen = [key for key in chosen if key in payloads]  # what was deleted meanwhile is gone
    maxsim = storage.scores(tokens, [payloads[key] for key in chosen])
    ranked = []
    for key, score in zip(chosen, maxsim.tolist(), strict=True):
        scores = {"maxsim": score, **(known[key].scores if key in known else {})}
        if key in found:
            scores["summary"] = found[key].score
        record = known[key].record if key in known else found[key].record
        ranked.append(Ranked(record, score, scores))
    ranked.sort(key=lambda each: -each.score)
    return _with_similarity(store, vector, ranked)


def rank_all_late(
    store: VectorStore,
    storage: TokenStorage,
    tokens: _Float32,
    vector: Vector,
    first: Sequence[Ranked],
    k: int,
    where: FilterLike | None,
) -> list[Ranked]:
    """The best ``k`` of all records that pass the filter, by MaxSim: exact, and slow."""
    best = storage.best(tokens, store.scan_tokens(where), k)
    records = store.get([key for key, _ in best])
    known = {each.record.id: each.scores for each in first}
    ranked = [
        Ranked(records[key], score, {"maxsim": score, **known.get(key, {})})
        for key, score in best
        if key in records
    ]
    return _with_similarity(store, vector, ranked)


def rerank(
    model: PairModel, query: ItemLike, ranked: Sequence[Ranked], location: Location
) -> list[Ranked]:
    """The records by the reranker's score, best first; those it cannot read come last."""
    documents = [item_behind(each.record, location) for each in ranked]
    scores = model.score(query, documents, on_error="none")
    judged, unread = [], []
    for each, score in zip(ranked, np.asarray(scores, dtype=float).tolist(), strict=True):
        if math.isnan(score):
            unread.append(each)
        else:
            judged.append(replace(each, score=score, scores={"rerank": score, **each.scores}))
    return sorted(judged, key=lambda each: -each.score) + unread


def item_behind(record: Record, location: Location) -> Item:
    """What a record was made of: its file or page, or its text where it came without a file."""
    modality = str(record.fields.get("modality"))
    uri = uri_of(record, location)
    if modality == "text" or uri is None:
        return Item((TextPart(record.text),), name=record.id)
    item = parse_item({modality: uri})
    return replace(item, name=record.id)


def _with_similarity(store: VectorStore, vector: Vector, ranked: Sequence[Ranked]) -> list[Ranked]:
    """With the cosine of those that the first step has not seen."""
    missing = [each.record.id for each in ranked if "dense" not in each.scores]
    found = similarities(store, vector, missing)
    return [
        replace(each, scores={**each.scores, "dense": found[each.record.id]})
        if each.record.id in found
        else each
        for each in ranked
    ]

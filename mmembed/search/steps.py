"""The second and third step of a search: MaxSim over token vectors, and a reranker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
    k: int,
    where: FilterLike | None,
) -> list[Ranked]:
    """The best ``k`` of the candidates by MaxSim.

    Candidates are the first step's hits and the records whose summaries fit best, ``candidates``
    in all, joined by reciprocal rank fusion.
    """
    summaries = dict(store.search_summary(storage.encoding.query(tokens), candidates, where))
    lists = [[each.record.id for each in first], list(summaries)]
    chosen = [key for key, _ in reciprocal_rank_fusion(lists)[:candidates]]
    best = storage.best(tokens, store.scan_tokens(In("id", tuple(chosen))), k)
    return _told(store, vector, best, first, summaries)


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
    return _told(store, vector, storage.best(tokens, store.scan_tokens(where), k), first, {})


def _told(
    store: VectorStore,
    vector: Vector,
    best: Sequence[tuple[str, float]],
    first: Sequence[Ranked],
    summaries: Mapping[str, float],
) -> list[Ranked]:
    """The records of these ids and MaxSim scores, with what the other steps said of them."""
    known = {each.record.id: each for each in first}
    missing = [
        key for key, _ in best if key not in known or not known[key].scores.keys() & {"dense"}
    ]
    read = store.get(missing, vectors=True)
    found = similarities(vector, read)
    ranked = []
    for key, score in best:
        if key not in known and key not in read:  # deleted meanwhile
            continue
        scores = {"maxsim": score, **(known[key].scores if key in known else {})}
        if key in found:
            scores["dense"] = found[key]
        if key in summaries:
            scores["summary"] = summaries[key]
        record = known[key].record if key in known else _light(read[key])
        ranked.append(Ranked(record, score, scores))
    return ranked


def _light(record: Record) -> Record:
    return replace(record, vector=None, tokens=None, summary=None)


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

"""One question to an index, answered in up to three steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from mmembed.errors import ConfigError, InputError
from mmembed.inputs.items import Item
from mmembed.search.filters import FilterLike
from mmembed.search.identity import text_of, utf8
from mmembed.search.late import TokenStorage
from mmembed.search.layout import Location
from mmembed.search.model import EmbeddingModel, multi_vector_model
from mmembed.search.ranking import Ranked, rank_dense, rank_hybrid, rank_text
from mmembed.search.steps import PairModel, rank_all_late, rank_late, rerank
from mmembed.search.store import Vector, VectorStore

__all__ = ["Mode", "Question", "answer"]

Mode: TypeAlias = Literal["hybrid", "dense", "text"]
_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Question:
    """What :meth:`mmembed.search.index.Index.search` is asked; its arguments by their names."""

    item: Item
    k: int
    filter: FilterLike | None
    mode: Mode
    min_score: float | None
    maxsim: int
    reranker: PairModel | None
    rerank: int

    @property
    def words(self) -> str:
        return text_of(self.item)

    def check(self) -> None:
        """Refuse what no index can answer.

        Raises:
            InputError: the mode is unknown, or the query has no text where it needs some.
        """
        if self.mode not in ("hybrid", "dense", "text"):
            reason = f"unknown mode {self.mode!r}"
            raise InputError("mode", reason, "use 'hybrid', 'dense' or 'text'")
        utf8(self.words)
        if self.mode == "text" and not self.words:
            raise InputError(self.item.label, "has no text to search for", "use mode='dense'")


def answer(
    store: VectorStore,
    storage: TokenStorage | None,
    location: Location,
    model: Callable[[], EmbeddingModel],
    question: Question,
) -> list[Ranked]:
    """The best records, best first.

    Args:
        store: what is searched.
        storage: how its token vectors are kept; None where it keeps none.
        location: where the media are, for the reranker.
        model: gives the model, which a search by words alone does not need.
        question: what is asked.

    Raises:
        ConfigError: MaxSim is asked for, and the index keeps no token vectors.
    """
    steps = question.maxsim > 0 or question.reranker is not None
    if not steps:
        vector = None if question.mode == "text" else _encoded(model(), question.item)
        return _first(store, vector, question, question.k, question.min_score)
    ranked = _before_reranking(store, storage, model, question)
    if question.min_score is not None:
        ranked = [each for each in ranked if _similarity(each, question) >= question.min_score]
    if question.reranker is not None:
        best = ranked[: max(question.rerank, 1)]
        ranked = rerank(question.reranker, question.item, best, location)
    return ranked[: question.k]


def _before_reranking(
    store: VectorStore,
    storage: TokenStorage | None,
    model: Callable[[], EmbeddingModel],
    question: Question,
) -> list[Ranked]:
    depth = max(question.k, question.rerank if question.reranker is not None else 0)
    if not question.maxsim:
        vector = None if question.mode == "text" else _encoded(model(), question.item)
        return _first(store, vector, question, depth, None)
    if storage is None:
        raise ConfigError(
            "maxsim: this index keeps no token vectors; make one with late=LateInteraction()"
        )
    vector, tokens = _encoded_late(model(), question.item, storage)
    candidates = max(question.maxsim, depth)
    first = _first(store, vector, question, candidates, None)
    passing = store.count(question.filter)
    if passing <= candidates:
        # A minimum is of another score, so that any of them may be among the best that reach it.
        depth = depth if question.min_score is None else passing
        return rank_all_late(store, storage, tokens, vector, first, depth, question.filter)
    depth = depth if question.min_score is None else candidates
    return rank_late(store, storage, tokens, vector, first, candidates, depth, question.filter)


def _first(
    store: VectorStore, vector: Vector | None, question: Question, k: int, floor: float | None
) -> list[Ranked]:
    if vector is None or (question.mode == "text" and question.words):
        return rank_text(store, question.words, k, question.filter, floor)
    if question.mode == "dense" or not question.words:
        return rank_dense(store, vector, k, question.filter, floor)
    return rank_hybrid(store, vector, question.words, k, question.filter, floor)


def _similarity(ranked: Ranked, question: Question) -> float:
    name = "text" if question.mode == "text" else "dense"
    return ranked.scores.get(name, -np.inf)


def _encoded(model: EmbeddingModel, item: Item) -> Vector:
    encoded = next(iter(model.encode_stream([item], role="query")))
    if encoded.vector is None:
        raise encoded.error or InputError(item.label, "the model gave no vector")
    return encoded.vector


def _encoded_late(
    model: EmbeddingModel, item: Item, storage: TokenStorage
) -> tuple[Vector, _Float32]:
    stream = multi_vector_model(model).encode_stream(
        [item], role="query", output=("dense", "multi")
    )
    encoded = next(iter(stream))
    if encoded.vector is None:
        raise encoded.error or InputError(item.label, "the model gave no vector")
    return encoded.vector, storage.check_query(encoded.multi)

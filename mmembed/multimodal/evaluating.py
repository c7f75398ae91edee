"""Held-out retrieval of any modality during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from torch import nn

from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.gpte.data.examples import Report
from mmembed.gpte.metrics import ndcg
from mmembed.inputs.items import Item
from mmembed.multimodal.config import (
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.data.rows import MediaExample, item_hash, media_examples
from mmembed.multimodal.encoder import MediaEncoder
from mmembed.search.maxsim import maxsim

__all__ = ["MediaEvaluator", "embedder_scores", "vector_scores"]

_METRICS = ("recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10")


_Encoder = TypeVar("_Encoder", bound=nn.Module)
Scores: TypeAlias = Callable[[_Encoder, MediaEvaluationSet, list[Item], list[Item]], Any]
"""``(q, d)`` scores of every query with every document."""


class MediaEvaluator(Generic[_Encoder]):
    """Reads the sets once, and measures an encoder on all of them whenever called.

    Args:
        resolve: puts files in the place of ``stage://`` sources.
        scores: of all queries and documents.

    Raises:
        ConfigError: ``best`` names no metric of these sets, or two sets share a name.
        InputError: a set cannot be read.
    """

    def __init__(
        self,
        config: MediaEvaluationConfig,
        resolve: Callable[[MediaSourceConfig], MediaSourceConfig],
        scores: Scores[_Encoder],
    ) -> None:
        self._scores = scores
        self.sets = {_name(one): (one, _examples(resolve(one.source))) for one in config.sets}
        if len(self.sets) < len(config.sets):
            raise ConfigError("evaluation: give the sources of the sets different names")
        metrics = [f"{name}/{metric}" for name in self.sets for metric in _METRICS]
        if config.best and config.best not in metrics:
            raise ConfigError(f"evaluation.best: {config.best!r} is none of {', '.join(metrics)}")

    def __call__(self, encoder: _Encoder) -> dict[str, float]:
        """Metrics by ``SET/METRIC``; the encoder's mode is restored."""
        was_training = encoder.training
        encoder.eval()
        try:
            return {
                f"{name}/{metric}": value
                for name, (one, examples) in self.sets.items()
                for metric, value in _measure(
                    partial(self._scores, encoder, one), one, examples
                ).items()
            }
        finally:
            encoder.train(was_training)


def _name(one: MediaEvaluationSet) -> str:
    name = one.source.name or one.source.path.rpartition("/")[2].partition(".")[0]
    return f"{name}-reverse" if one.reverse else name


def _examples(source: MediaSourceConfig) -> list[MediaExample]:
    found = list(media_examples(source, Report(source.name), "raise"))
    if not found:
        raise ConfigError(f"evaluation set {source.path}: holds no rows")
    return found


def _measure(
    score: Callable[[list[Item], list[Item]], Any],
    one: MediaEvaluationSet,
    examples: Sequence[MediaExample],
) -> dict[str, float]:
    """Mean metrics of each different query among all different documents."""
    asked, found = _distinct(examples, "query"), _distinct(examples, "positive")
    relevant = np.zeros((len(asked), len(found)))
    places = [{key: i for i, key in enumerate(side)} for side in (asked, found)]
    for example in examples:
        query, positive = item_hash(example.query), item_hash(example.positive)
        relevant[places[0][query], places[1][positive]] = 1.0
    scores = score(list(asked.values()), list(found.values()))
    if one.reverse:
        scores, relevant = scores.T, relevant.T
    best = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, best, axis=1)
    out = {f"recall@{k}": float(hits[:, :k].any(axis=1).mean()) for k in (1, 5, 10)}
    return out | {f"ndcg@{k}": float(ndcg(scores, relevant, k).mean()) for k in (5, 10)}


def _distinct(examples: Sequence[MediaExample], side: str) -> dict[int, Item]:
    items = [getattr(example, side) for example in examples]
    return {item_hash(item): item for item in reversed(items)}


def vector_scores(
    encoder: MediaEncoder, one: MediaEvaluationSet, queries: list[Item], documents: list[Item]
) -> np.ndarray[Any, Any]:
    """As :func:`embedder_scores`; a stage that trains a task adapter is measured with it."""
    return embedder_scores(encoder.embedder, one, queries, documents, encoder.task or None)


def embedder_scores(
    embedder: Embedder,
    one: MediaEvaluationSet,
    queries: list[Item],
    documents: list[Item],
    task: str | None = None,
) -> np.ndarray[Any, Any]:
    """``(q, d)`` cosines of dense vectors, or MaxSim of token vectors."""
    options: dict[str, Any] = {"show_progress": False, "task": task}
    if one.score == "cosine":
        q = embedder.encode_query(queries, **options)
        d = embedder.encode_document(documents, **options)
        return np.asarray(q @ d.T)
    q_multi = embedder.encode_query(queries, output="multi", **options)
    d_multi = embedder.encode_document(documents, output="multi", **options)
    return maxsim(q_multi, d_multi)

"""A stage that trains a reranker, by the loop that trains embedders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmembed.embedder import Embedder
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.inputs.items import Item
from mmembed.multimodal.config import (
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.data.rows import MediaExample
from mmembed.multimodal.evaluating import MediaEvaluator, embedder_scores
from mmembed.multimodal.reranking.encoder import PairEncoder, start_pair_encoder
from mmembed.multimodal.reranking.examples import PairExamples
from mmembed.multimodal.reranking.stage import MediaRerankStage
from mmembed.multimodal.training import run_stage
from mmembed.reranker import Reranker, log_odds

__all__ = ["PairScores", "run_media_rerank"]

_LEFT_OUT = 100.0  # further below the log-odds of what is judged than these reach


def run_media_rerank(stage: MediaRerankStage, context: Context) -> Outcome | None:
    """Train one stage; None if it was stopped early.

    Raises:
        ConfigError, InputError, ModelLoadError, TrainingError, OSError: as
            :func:`mmembed.multimodal.training.run_media_train`.
    """

    def examples(encoder: PairEncoder, sources: Sequence[Sequence[MediaExample]]) -> PairExamples:
        skip = stage.data.bad_rows == "skip"
        return PairExamples(sources, encoder.scorer, stage.data.negatives, skip=skip)

    def evaluator(
        config: MediaEvaluationConfig, resolve: Callable[[MediaSourceConfig], MediaSourceConfig]
    ) -> MediaEvaluator[PairEncoder]:
        return MediaEvaluator(config, resolve, PairScores(context.model))

    return run_stage(stage, context, start_pair_encoder, examples, evaluator)


@dataclass
class PairScores:
    """A reranker's scores of queries and documents, as :class:`MediaEvaluator` asks for them.

    Attributes:
        model: the folder or hub name that a set's ``retriever`` means.
    """

    model: Callable[[str], str]
    _found: dict[str, NDArray[np.float64]] = field(default_factory=dict, init=False)

    def __call__(
        self,
        encoder: PairEncoder,
        one: MediaEvaluationSet,
        queries: list[Item],
        documents: list[Item],
    ) -> NDArray[np.float64]:
        """``(q, d)``: log-odds, and the retriever's order for what it leaves out, below them."""
        reranker = Reranker(encoder.scorer)
        if not one.retriever:
            return np.stack([log_odds(reranker.score(query, documents)) for query in queries])
        found = self._retrieved(one, queries, documents)
        scores = found - _LEFT_OUT
        for row, near, query in zip(scores, found, queries, strict=True):
            best = np.argsort(-near, kind="stable")[: one.top]
            judged = log_odds(reranker.score(query, [documents[i] for i in best]))
            row[best] = judged + one.retriever_weight * near[best]
        return scores

    def _retrieved(
        self, one: MediaEvaluationSet, queries: list[Item], documents: list[Item]
    ) -> NDArray[np.float64]:
        """``(q, d)`` scores of the set's retriever, computed once."""
        if (key := repr(one)) not in self._found:
            retriever = Embedder.from_pretrained(self.model(one.retriever))
            scores = embedder_scores(retriever, one, queries, documents)
            self._found[key] = scores.astype(np.float64)
        return self._found[key]

"""A stage that trains a reranker, by the loop that trains embedders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmembed.gpte.outcomes import Context, Outcome
from mmembed.inputs.items import Item
from mmembed.multimodal.config import (
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.data.rows import MediaExample
from mmembed.multimodal.evaluating import MediaEvaluator
from mmembed.multimodal.reranking.encoder import PairEncoder, start_pair_encoder
from mmembed.multimodal.reranking.examples import PairExamples
from mmembed.multimodal.reranking.stage import MediaRerankStage
from mmembed.multimodal.training import run_stage
from mmembed.reranker import Reranker

__all__ = ["run_media_rerank"]


def run_media_rerank(stage: MediaRerankStage, context: Context) -> Outcome | None:
    """Train one stage; None if it was stopped early.

    Raises:
        ConfigError, InputError, ModelLoadError, TrainingError, OSError: as
            :func:`mmembed.multimodal.training.run_media_train`.
    """

    def examples(encoder: PairEncoder, sources: Sequence[Sequence[MediaExample]]) -> PairExamples:
        skip = stage.data.bad_rows == "skip"
        return PairExamples(sources, encoder.scorer, stage.data.negatives, skip=skip)

    return run_stage(stage, context, start_pair_encoder, examples, _evaluator)


def _evaluator(
    config: MediaEvaluationConfig, resolve: Callable[[MediaSourceConfig], MediaSourceConfig]
) -> MediaEvaluator[PairEncoder]:
    return MediaEvaluator(config, resolve, _scores)


def _scores(
    encoder: PairEncoder, one: MediaEvaluationSet, queries: list[Item], documents: list[Item]
) -> NDArray[np.float32]:
    """``(q, d)``: every query with every document."""
    reranker = Reranker(encoder.scorer)
    return np.stack([reranker.score(query, documents) for query in queries])

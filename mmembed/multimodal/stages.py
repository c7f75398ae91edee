"""The kinds of stages that multimodal recipes have, and what runs them."""

from __future__ import annotations

from collections.abc import Mapping

from mmembed.gpte.recipe import Stage
from mmembed.gpte.run import Runner
from mmembed.multimodal.merging import MediaMergeStage, run_media_merge
from mmembed.multimodal.mining import MediaMineStage, run_media_mine
from mmembed.multimodal.reranking.stage import MediaRerankStage
from mmembed.multimodal.reranking.training import run_media_rerank
from mmembed.multimodal.stage import MediaTrainStage
from mmembed.multimodal.training import run_media_train

__all__ = ["MEDIA_RUNNERS", "MEDIA_STAGES"]

MEDIA_STAGES: tuple[type[Stage], ...] = (
    MediaTrainStage,
    MediaRerankStage,
    MediaMineStage,
    MediaMergeStage,
)
MEDIA_RUNNERS: Mapping[type, Runner] = {
    MediaTrainStage: run_media_train,
    MediaRerankStage: run_media_rerank,
    MediaMineStage: run_media_mine,
    MediaMergeStage: run_media_merge,
}

"""Multimodal training as a kind of stage in recipes: ``kind: multimodal``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from mmembed.errors import ConfigError
from mmembed.gpte.recipe import TrainStage
from mmembed.gpte.tiny import narrow
from mmembed.multimodal.config import (
    MediaDataConfig,
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaSourceConfig,
)

__all__ = ["CommunityConfig", "MediaTrainStage"]

_ROWS = 12
_STEPS = 2


@dataclass(frozen=True)
class CommunityConfig:
    """Batches of communities (B3): see :mod:`mmembed.multimodal.communities`.

    Attributes:
        teacher: folder or hub name of the model that ranks; the stage's own start by default.
        skip: best ranks that may be false negatives.
        keep: ranks after those that join rows.
        size: rows of a community; a batch holds ``batch.size / size`` of them.
    """

    teacher: str = ""
    family: str = "qwen2_vl"
    skip: int = 30
    keep: int = 100
    size: int = 32
    method: Literal["grow", "metis"] = "grow"


@dataclass(frozen=True)
class MediaTrainStage(TrainStage):
    """One run of the trainer over items of any modality.

    Attributes:
        communities: mine batches with a teacher; ``batch.order`` must be ``contextual``.
    """

    kind: ClassVar[str] = "multimodal"

    data: MediaDataConfig  # type: ignore[assignment]
    encoder: MediaEncoderConfig  # type: ignore[assignment]
    evaluation: MediaEvaluationConfig | None = None  # type: ignore[assignment]
    communities: CommunityConfig | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks:
            raise ConfigError(f"stage {self.name}: token tasks train on text alone: use kind train")
        if self.batch.tokens is not None:
            raise ConfigError(
                f"stage {self.name}: batches of media are counted in rows; bound their memory by "
                "batch.chunk_tokens"
            )
        if (self.batch.order == "contextual") != (self.communities is not None):
            raise ConfigError(
                f"stage {self.name}: communities and batch.order: contextual belong together"
            )

    def tiny(self, folder: Path) -> MediaTrainStage:
        """The stage with a tiny random model, a few rows and a few steps."""
        from mmembed.backbones.vlm.tiny import tiny_vlm

        backbone = str(tiny_vlm(self.encoder.family, folder / self.encoder.family))
        lora = self.encoder.lora
        settings = dict(self.encoder.settings)
        if settings.get("multi_dim"):
            settings["multi_dim"] = 16
        encoder = replace(
            self.encoder,
            backbone=backbone,
            settings=settings,
            lora=None if lora is None else replace(lora, rank=4),
        )
        batch = replace(
            self.batch,
            size=min(self.batch.size, 4),
            block=min(self.batch.block, 2),
            cluster_rows=None,
            chunk_rows=None if self.batch.chunk_rows is None else 2,
            chunk_tokens=None if self.batch.chunk_tokens is None else 256,
            accumulate=min(self.batch.accumulate, 2),
        )
        data = replace(
            self.data,
            sources=tuple(map(_few, self.data.sources)),
            negatives=min(self.data.negatives, 2),
            check_media=False,
        )
        evaluation = self.evaluation
        if evaluation is not None:
            sets = tuple(replace(one, source=_few(one.source)) for one in evaluation.sets)
            evaluation = replace(evaluation, sets=sets)
        found = self.communities
        if found is not None:
            teacher = found.teacher and str(tiny_vlm(found.family, folder / found.family))
            found = replace(found, teacher=teacher, skip=1, keep=4, size=2)
        return replace(
            self,
            data=data,
            encoder=encoder,
            batch=batch,
            evaluation=evaluation,
            communities=found,
            objective=narrow(self.objective),
            schedule=replace(self.schedule, steps=_STEPS),
            checkpoint=replace(self.checkpoint, every=min(self.checkpoint.every, _STEPS - 1)),
            start=_start(self.start, backbone),
            precision="no",
            trackers=(),
        )


def _few(source: MediaSourceConfig) -> MediaSourceConfig:
    limit = min(source.limit or _ROWS, _ROWS)
    return replace(source, limit=limit, objective=narrow(source.objective))


def _start(start: str, backbone: str) -> str:
    named = start in ("base", "previous") or start.startswith("stage://")
    return start if named else backbone

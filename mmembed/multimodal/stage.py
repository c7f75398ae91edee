"""Multimodal training as a kind of stage in recipes: ``kind: multimodal``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from mmembed.errors import ConfigError
from mmembed.gpte.recipe import TrainStage
from mmembed.gpte.tiny import narrow, tiny_model
from mmembed.multimodal.config import (
    MediaDataConfig,
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaSourceConfig,
)

__all__ = ["CommunityConfig", "MediaTrainStage", "few", "tiny_judge", "tiny_named", "tiny_of"]

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
    reranks: ClassVar[bool] = False

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
        sets = self.evaluation.sets if self.evaluation is not None else ()
        if not self.reranks and any(one.retriever for one in sets):
            raise ConfigError(
                f"stage {self.name}: evaluation: an embedder ranks all documents itself: leave out "
                "retriever"
            )
        if (self.batch.order == "contextual") != (self.communities is not None):
            raise ConfigError(
                f"stage {self.name}: communities and batch.order: contextual belong together"
            )

    def tiny(self, folder: Path) -> MediaTrainStage:
        """The stage with a tiny random model, a few rows and a few steps."""
        backbone = str(tiny_of(self.encoder.family, folder))
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
        guide = self.data.guide
        if guide is not None and not guide.model.startswith("stage://"):
            guide = replace(guide, model=str(tiny_of(guide.family, folder)))
        data = replace(
            self.data,
            guide=guide,
            sources=tuple(map(few, self.data.sources)),
            negatives=min(self.data.negatives, 2),
            check_media=False,
        )
        evaluation = self.evaluation
        if evaluation is not None:
            sets = tuple(
                replace(
                    one,
                    source=few(one.source),
                    retriever=one.retriever
                    and tiny_named(one.retriever, self.encoder.family, folder),
                )
                for one in evaluation.sets
            )
            evaluation = replace(evaluation, sets=sets)
        found = self.communities
        if found is not None:
            teacher = found.teacher and str(tiny_of(found.family, folder))
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
            start=tiny_named(self.start, self.encoder.family, folder),
            precision="no",
            trackers=(),
        )


def tiny_of(family: str, folder: Path) -> Path:
    """A tiny random model: of a vision-language family, two towers, or a text architecture."""
    from mmembed.backbones.towers.tiny import TINY_TOWERS, tiny_towers
    from mmembed.backbones.vlm.tiny import TINY, tiny_vlm

    make = tiny_vlm if family in TINY else tiny_towers if family in TINY_TOWERS else tiny_model
    return make(family, folder / family)


def tiny_judge(folder: Path) -> Path:
    """A tiny random yes/no reranker, whose words are bytes, so that an answer is one token."""
    from mmembed.backbones.vlm.tiny import tiny_vlm
    from mmembed.rerankers.yes_no import YesNoReranker, YesNoSettings

    made = folder / "judge"
    if not made.exists():
        plain = tiny_vlm("qwen2_vl", folder / "qwen2_vl")
        judge = YesNoReranker.from_folder(plain, YesNoSettings(yes="y", no="n"))
        judge.save_pretrained(str(made))
    return made


def few(source: MediaSourceConfig) -> MediaSourceConfig:
    """The same source, cut to the few rows of a trial run."""
    limit = min(source.limit or _ROWS, _ROWS)
    return replace(source, limit=limit, objective=narrow(source.objective))


def tiny_named(reference: str, family: str, folder: Path) -> str:
    """A tiny model in the place of a folder or a hub name; stages keep their names."""
    if reference in ("base", "previous"):
        return reference
    if reference.startswith("stage://"):
        name, at, step = reference.partition("@")
        return f"{name}@{_STEPS - 1}" if at and step.isdecimal() else reference
    return str(tiny_of(family, folder))

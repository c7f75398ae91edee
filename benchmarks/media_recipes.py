"""Multimodal recipes at the size of ``media_gains.py``: ideas stay, models and data change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmembed.gpte.config import CheckpointConfig, LoraSettings
from mmembed.gpte.recipe import MergeStage, MineStage, Recipe, TrainStage
from mmembed.multimodal.config import (
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.reranking.stage import MediaRerankStage
from mmembed.multimodal.stage import MediaTrainStage

__all__ = ["DEV", "Setting", "at_size", "kinds_of", "plain"]

ROOT = Path(__file__).resolve().parents[1]
DEV = " dev"  # ends the names of sets that choose learning rates
TEACHER = "mini"  # in the place of rerankers as judges and of teachers of texts
TEMPERATURE = 0.02  # of plain InfoNCE
LATE = 32  # width of token vectors
TEXTS = 800  # rows of a set of texts
ASKED = 100  # test rows of a reranker
DEV_ROWS = 300
SHORTLIST = 10  # documents that it orders, of those that an embedder finds
MINED = 1600  # rows of a source that negatives are mined for, or that form communities
POINTS = 2  # of a curve, beside its start


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        start: the model that every run goes on from.
        rows: the folder of ``media_data.py``.
        steps: of all stages of a recipe together.
    """

    start: Path
    rows: Path
    steps: int
    batch: int
    lr: float
    seed: int


def at_size(recipe: Recipe, setting: Setting, output: Path) -> Recipe:
    """The recipe over the small model and the common data, with its steps cut to the budget."""
    learning = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    steps = setting.steps // len(learning)
    stages = []
    for stage in recipe.stages:
        if isinstance(stage, MineStage):
            stages.append(_mined(stage, setting))
        elif isinstance(stage, MergeStage):
            stages.append(stage)
        else:
            assert isinstance(stage, MediaTrainStage)
            stages.append(_trained(stage, recipe, setting, steps))
    return replace(recipe, stages=tuple(stages), seed=setting.seed, output=str(output))


def plain(recipe: Recipe, setting: Setting, output: Path) -> Recipe:
    """InfoNCE against the batch on the recipe's own pairs, for as many steps in one stage."""
    sources = {one.path: one for one in _sources(recipe) if not one.label}
    kept = tuple(
        replace(one, instruction="", weight=1.0, negatives=(), objective=None)
        for one in sources.values()
    )
    stages = [stage for stage in recipe.stages if isinstance(stage, MediaTrainStage)]
    evaluated = next(s for s in reversed(stages) if s.evaluation is not None)
    assert evaluated.evaluation is not None
    late = evaluated.evaluation.sets[0].score == "maxsim" and len(stages) == 1
    limit = ASKED if _reranks(recipe) else None
    sets = tuple(
        replace(
            one,
            score="maxsim" if late else "cosine",
            retriever="",
            source=replace(one.source, limit=limit or one.source.limit),
        )
        for one in evaluated.evaluation.sets
    )
    stage = MediaTrainStage(
        name="train",
        data=replace(stages[0].data, sources=kept, negatives=0, guide=None),
        encoder=MediaEncoderConfig("", settings={"multi_dim": LATE} if late else {}),
        objective={
            "name": "infonce",
            "temperature": TEMPERATURE,
            "masks": ["duplicates"],
            **({"score": "mean_maxsim"} if late else {}),
        },
        evaluation=replace(evaluated.evaluation, sets=sets),
    )
    return at_size(replace(recipe, name="infonce", stages=(stage,)), setting, output)


def kinds_of(recipe: Recipe) -> set[str]:
    """The kinds of tasks that a recipe learns from: ``T-I``, ``terms``, ..."""
    return {_kind(source.path) for source in _sources(recipe)}


def _sources(recipe: Recipe) -> list[MediaSourceConfig]:
    stages: list[Any] = [s for s in recipe.stages if isinstance(s, (TrainStage, MineStage))]
    found = [source for stage in stages for source in stage.data.sources]
    return [source for source in found if not source.path.startswith("stage://")]


def _kind(path: str) -> str:
    return Path(path).name.partition(".")[0].rpartition("-")[0]


def _placed(source: MediaSourceConfig, setting: Setting) -> MediaSourceConfig:
    if source.path.startswith("stage://"):
        return source
    name = Path(source.path).name
    if source.path.startswith("data/text"):
        limit = min(source.limit or TEXTS, TEXTS)
        return replace(source, path=str(ROOT / source.path), limit=limit)
    return replace(source, path=str(setting.rows / name), name=name.partition(".")[0])


def _mined(stage: Any, setting: Setting) -> Any:
    data = replace(stage.data, sources=tuple(_placed(one, setting) for one in stage.data.sources))
    model = stage.model if stage.model.startswith(("stage", "previous")) else str(setting.start)
    if stage.reranker is not None:  # the teacher mines, and its cosines are its judgement
        model = TEACHER
    return replace(stage, data=_few(data), model=model, reranker=None)


def _few(data: Any) -> Any:
    sources = tuple(replace(one, limit=min(one.limit or MINED, MINED)) for one in data.sources)
    return replace(data, sources=sources)


def _trained(
    stage: MediaTrainStage, recipe: Recipe, setting: Setting, steps: int
) -> MediaTrainStage:
    placed = [_placed(one, setting) for one in stage.data.sources]
    sources = tuple(replace(one, teacher=one.teacher and "scores") for one in placed)
    data = replace(stage.data, sources=sources)
    if data.guide is not None and "://" not in data.guide.model:
        data = replace(data, guide=replace(data.guide, model=TEACHER))
    late = "maxsim" in repr(stage.objective) or stage.encoder.settings.get("multi_dim")
    found = stage.communities
    if found is not None:
        found = replace(found, teacher=str(setting.start), skip=10, keep=50, size=8)
        data = _few(data)
    chunks = {"chunk_rows": None, "chunk_tokens": None}
    return replace(
        stage,
        data=data,
        encoder=MediaEncoderConfig(
            str(setting.start),
            settings={"multi_dim": LATE} if late else {},
            lora=LoraSettings(rank=16),
            train="none",
            task=stage.encoder.task,
            clone=stage.encoder.clone,
        ),
        objective=_objective(stage.objective, setting.batch),
        batch=replace(stage.batch, size=setting.batch, block=8, accumulate=1, **chunks),
        communities=found,
        schedule=replace(stage.schedule, steps=steps, lr=setting.lr, head_lr=None, warmup=0.1),
        evaluation=_evaluation(stage, recipe, setting, steps),
        checkpoint=CheckpointConfig(every=0),
        precision="no",
        trackers=(),
    )


def _objective(config: Any, batch: int) -> Any:
    """Matryoshka widths of a model that is 384 wide, cosines for a teacher's log-odds, and start
    values for a scale that this start does not bring: what it learned with, or SigLIP's, whose bias
    is the logarithm of the share of pairs in the batch."""
    if isinstance(config, dict):
        found = {key: _objective(value, batch) for key, value in config.items()}
        if found.pop("own_scale", False):
            sigmoid = {"temperature": 0.1, "bias": -math.log(batch - 1)}
            found |= sigmoid if found["name"] == "sigmoid" else {"temperature": TEMPERATURE}
        if "teacher_temperature" in found:
            found["teacher_temperature"] = 0.02
        return {**found, "dims": [64, 128, 384]} if "dims" in found else found
    return [_objective(one, batch) for one in config] if isinstance(config, list) else config


def _reranks(recipe: Recipe) -> bool:
    return any(isinstance(stage, MediaRerankStage) for stage in recipe.stages)


def _evaluation(
    stage: MediaTrainStage, recipe: Recipe, setting: Setting, steps: int
) -> MediaEvaluationConfig | None:
    """The recipe's own test sets, asked with the instructions that it learned, and of each the
    development rows."""
    if stage.evaluation is None:
        return None
    told = {_kind(one.path): one.instruction for one in _sources(recipe)}
    sets: dict[str, MediaEvaluationSet] = {}
    for one in stage.evaluation.sets:
        kind = _kind(one.source.path)
        if kind == "T-V" or kind in sets:  # six clips; one way of scoring a set
            continue
        retriever = one.retriever
        if retriever and "://" not in retriever:
            retriever = str(setting.start)
        for part, name, default in (("test", kind, None), ("dev", kind + DEV, DEV_ROWS)):
            path = one.source.path.replace("-test.", f"-{part}.").replace("-dev.", f"-{part}.")
            source = replace(
                _placed(replace(one.source, path=path), setting),
                name=name,
                instruction=told.get(kind, ""),
                limit=ASKED if _reranks(recipe) else one.source.limit or default,
            )
            sets[name] = replace(one, source=source, retriever=retriever, top=SHORTLIST)
    return MediaEvaluationConfig(tuple(sets.values()), every=max(1, steps // POINTS))

"""Multimodal recipes at the size of ``media_gains.py``: ideas stay, models and data change."""

from __future__ import annotations

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

__all__ = ["Setting", "at_size", "kinds_of", "plain"]

ROOT = Path(__file__).resolve().parents[1]
LATE = 32  # width of token vectors
TEXTS = 800  # rows of a set of texts
PAIRS = 40  # test rows that a reranker reads, every one with every one
MINED = 1600  # rows of a source that negatives are mined for, or that form communities
POINTS = 2  # of a curve, beside its start


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        start: the model before any multimodal training.
        aligned: the same after plain InfoNCE on names and pictures; it stands in for models that
            know both already: teachers, miners, judges, and the start of rerankers and of what
            learns from text alone.
        rows: the folder of ``media_data.py``.
        steps: of all stages of a recipe together.
    """

    start: Path
    aligned: Path
    rows: Path
    steps: int
    batch: int
    lr: float
    seed: int


def at_size(recipe: Recipe, setting: Setting, output: Path) -> Recipe:
    """The recipe over the small model and the common data, with its steps cut to the budget."""
    learning = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    base = setting.aligned if _knows(recipe) else setting.start
    steps = setting.steps // len(learning)
    stages = []
    for stage in recipe.stages:
        if isinstance(stage, MineStage):
            stages.append(_mined(stage, setting))
        elif isinstance(stage, MergeStage):
            stages.append(stage)
        else:
            assert isinstance(stage, MediaTrainStage)
            stages.append(_trained(stage, recipe, setting, base, steps))
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
    stage = MediaTrainStage(
        name="train",
        data=replace(stages[0].data, sources=kept, negatives=0, guide=None),
        encoder=MediaEncoderConfig("", settings={"multi_dim": LATE} if late else {}),
        objective={
            "name": "infonce",
            "temperature": 0.02,
            "masks": ["duplicates"],
            **({"score": "mean_maxsim"} if late else {}),
        },
        evaluation=evaluated.evaluation,
    )
    if _knows(recipe):
        setting = replace(setting, start=setting.aligned)
    return at_size(replace(recipe, name="infonce", stages=(stage,)), setting, output)


def kinds_of(recipe: Recipe) -> set[str]:
    """The kinds of tasks that a recipe learns from: ``T-I``, ``terms``, ..."""
    return {_kind(source.path) for source in _sources(recipe)}


def _knows(recipe: Recipe) -> bool:
    """Whether it starts from a model that knows words and pictures, and changes how it answers."""
    first = next(one for one in recipe.stages if isinstance(one, TrainStage))
    return kinds_of(recipe) == {"terms"} or isinstance(first, MediaRerankStage)


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
    model = stage.model if stage.model.startswith(("stage", "previous")) else str(setting.aligned)
    # Without a reranker the miner's own cosines are the teacher's scores.
    return replace(stage, data=_few(data), model=model, reranker=None)


def _few(data: Any) -> Any:
    sources = tuple(replace(one, limit=min(one.limit or MINED, MINED)) for one in data.sources)
    return replace(data, sources=sources)


def _trained(
    stage: MediaTrainStage, recipe: Recipe, setting: Setting, base: Path, steps: int
) -> MediaTrainStage:
    data = replace(stage.data, sources=tuple(_placed(one, setting) for one in stage.data.sources))
    if data.guide is not None and "://" not in data.guide.model:
        data = replace(data, guide=replace(data.guide, model="mini"))
    late = "maxsim" in repr(stage.objective) or stage.encoder.settings.get("multi_dim")
    found = stage.communities
    if found is not None:
        found = replace(found, teacher=str(setting.aligned), skip=10, keep=50, size=8)
        data = _few(data)
    chunks = {"chunk_rows": None, "chunk_tokens": None}
    return replace(
        stage,
        data=data,
        encoder=MediaEncoderConfig(
            str(base),
            settings={"multi_dim": LATE} if late else {},
            lora=LoraSettings(rank=16),
            train="none",
            task=stage.encoder.task,
            clone=stage.encoder.clone,
        ),
        objective=_objective(stage.objective),
        batch=replace(stage.batch, size=setting.batch, block=8, accumulate=1, **chunks),
        communities=found,
        schedule=replace(stage.schedule, steps=steps, lr=setting.lr, head_lr=None, warmup=0.1),
        evaluation=_evaluation(stage, recipe, setting, steps),
        checkpoint=CheckpointConfig(every=0),
        precision="no",
        trackers=(),
    )


def _objective(config: Any) -> Any:
    """Matryoshka widths of a model that is 384 wide, and cosines for a teacher's log-odds."""
    if isinstance(config, dict):
        found = {key: _objective(value) for key, value in config.items()}
        if "teacher_temperature" in found:
            found["teacher_temperature"] = 0.02
        return {**found, "dims": [64, 128, 384]} if "dims" in found else found
    return [_objective(one) for one in config] if isinstance(config, list) else config


def _evaluation(
    stage: MediaTrainStage, recipe: Recipe, setting: Setting, steps: int
) -> MediaEvaluationConfig | None:
    """The recipe's own test sets, asked with the instructions that it learned."""
    if stage.evaluation is None:
        return None
    told = {_kind(one.path): one.instruction for one in _sources(recipe)}
    sets: dict[str, MediaEvaluationSet] = {}
    for one in stage.evaluation.sets:
        kind = _kind(one.source.path)
        if kind == "T-V" or kind in sets:  # six clips; one way of scoring a set
            continue
        source = replace(_placed(one.source, setting), name=kind)
        if source.limit and kind == "T-I":
            source = replace(source, limit=PAIRS)
        source = replace(source, instruction=told.get(kind, ""))
        sets[kind] = replace(one, source=source)
    return MediaEvaluationConfig(tuple(sets.values()), every=max(1, steps // POINTS))

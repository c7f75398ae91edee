"""Recipes of configs/recipes/text at a laptop's size: the same stages, on one small model.

What changes is the same for every recipe. The backbone is the start. Steps, batches and texts are
short, a query has two hard negatives at most, the learning rate is the start's, what counts steps
shrinks along, and sets are samples of data/text. Teachers, guides, miners and cross-encoders are
all-MiniLM-L6-v2, whose cosines teach in a cross-encoder's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmembed.gpte.config import (
    DataConfig,
    EncoderConfig,
    EvaluationSet,
    SourceConfig,
)
from mmembed.gpte.recipe import (
    CalibrateStage,
    MergeStage,
    MineStage,
    Recipe,
    Stage,
    TrainStage,
)
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.tiny import narrow

__all__ = ["OfStage", "Start", "at_size", "held_out", "leaves", "sampled", "stage_at_size"]

_TEACHER_WIDTH = 384
_INSTRUCTION = "Retrieve the text that fits"  # of sets learned without one
_COSINES = 0.05  # temperature of MiniLM's cosines as a teacher


@dataclass(frozen=True)
class Start:
    """Where runs begin, and how long and fast they learn.

    Attributes:
        models: folders of backbones by architecture; "" holds the one for those that are missing.
        masked: of a masked language model with the same tokens, which makes DiffCSE's replacements.
        teacher: folder of all-MiniLM-L6-v2.
        data: folder of sampled sets, under the names of ``data/text``.
        width: of its vectors.
        lr: of a model that learns as a whole.
        head_lr: of new heads, and of adapters, prefixes and biases; theirs where it is higher.
    """

    name: str
    models: Mapping[str, str]
    masked: str
    teacher: str
    data: Path
    width: int
    steps: int
    batch: int
    tokens: int
    lr: float
    head_lr: float

    def model(self, family: str) -> str:
        return self.models.get(family) or self.models[""]

    def file(self, path: str) -> str:
        return path if "://" in path else str(self.data / Path(path).name)


OfStage = Callable[[Stage, Start], Stage]


def at_size(recipe: Recipe, start: Start, output: Path, of_stage: OfStage | None = None) -> Recipe:
    """The recipe from that start; its ideas stay. Several stages share half as many steps again.

    ``of_stage`` cuts down stages of other kinds than those of text.
    """
    learning = sum(isinstance(stage, TrainStage) for stage in recipe.stages)
    if learning > 1:
        start = replace(start, steps=3 * start.steps // (2 * learning))
    stages = tuple((of_stage or stage_at_size)(stage, start) for stage in recipe.stages)
    return replace(recipe, stages=stages, output=str(output))


def stage_at_size(stage: Stage, start: Start) -> Stage:
    """A stage of a text recipe from that start."""
    if isinstance(stage, MergeStage):
        return replace(stage, models=tuple(_kept(name, start) for name in stage.models))
    if isinstance(stage, CalibrateStage):
        dim = None if stage.dim is None else min(stage.dim, start.width // 2)
        model = start.model("bert") if "://" not in stage.model else stage.model
        data = _data(stage.data, start)
        return replace(stage, data=data, model=model, dim=dim, evaluation=None)
    if isinstance(stage, MineStage):
        own = stage.model == "previous" or stage.model.startswith("stage://")
        model = stage.model if own and stage.reranker is None else start.teacher
        return replace(stage, data=_data(stage.data, start), model=model, reranker=None)
    return _train_stage(stage, start)


def _train_stage(stage: TrainStage, start: Start) -> TrainStage:
    batch, schedule, momentum = stage.batch, stage.schedule, stage.momentum
    size = min(batch.size, start.batch)
    whole = stage.encoder.lora is None and stage.encoder.train == "all"
    if momentum is not None:
        decay = min(momentum.decay, 0.99)  # a slower one would not move in so few steps
        momentum = replace(momentum, queue=min(momentum.queue, 8 * size), decay=decay)
    return replace(
        stage,
        encoder=_encoder(stage, start),
        data=_data(stage.data, start),
        objective=_objective(stage.objective, start),
        tasks=tuple(_task(task, start) for task in stage.tasks),
        # Batches this small fit: the gradient cache, whose gradients are equal, has nothing to do.
        batch=replace(batch, size=size, chunk_rows=None, cluster_rows=None, accumulate=1),
        schedule=replace(
            schedule,
            steps=start.steps,
            lr=start.lr if whole else max(schedule.lr, start.head_lr),
            head_lr=max(start.head_lr, schedule.lr),
            warmup=0.1,
        ),
        momentum=momentum,
        evaluation=None,
        checkpoint=replace(
            stage.checkpoint, every=_middle(start) if stage.checkpoint.models else 0
        ),
        precision="no",
        trackers=(),
    )


def _encoder(stage: TrainStage, start: Start) -> EncoderConfig:
    config = stage.encoder
    settings = dict(config.settings)
    settings["max_tokens"] = start.tokens + _room(stage)
    if "projections" in settings:
        # What a teacher's vectors are learned through has their width.
        objective = stage.objective if isinstance(stage.objective, Mapping) else {}
        copies = objective.get("name") == "embedding_kd" and not objective.get("teacher_width")
        most = _TEACHER_WIDTH if copies else start.width
        settings["projections"] = [
            {**one, "out": start.width if one.get("train_only") else min(one["out"], most)}
            for one in settings["projections"]
        ]
    if settings.get("context"):
        settings["context"] = {**settings["context"], "documents": 16, "width": _TEACHER_WIDTH}
    if settings.get("latents"):
        settings |= {"latents": min(settings["latents"], 32), "latent_head_dim": None}
    if "multi" in settings.get("heads", ()):
        settings["multi_dim"] = min(settings.get("multi_dim", 128), start.width)
    lengthen = config.lengthen
    if lengthen is not None:
        lengthen = replace(lengthen, tokens=1024)
    lora = config.lora
    if lora is not None:
        lora = replace(lora, rank=min(lora.rank, 16))
    return replace(
        config,
        backbone=start.model(config.family),
        settings=settings,
        lengthen=lengthen,
        lora=lora,
        gradient_checkpointing=False,
    )


def _room(stage: TrainStage) -> int:
    """Tokens for the longest prompt, at three characters each, beside those for texts."""
    settings = stage.encoder.text_settings
    prompts = settings.prompts.values() if settings else ()
    own = max((len(s.instruction + s.document_instruction) for s in stage.data.sources), default=0)
    return max((len(p.template) + max(len(p.instruction), own) for p in prompts), default=0) // 3


def _data(data: DataConfig, start: Start) -> DataConfig:
    guide = data.guide
    if guide is not None and "://" not in guide.model:
        guide = replace(guide, model=start.teacher)
    sources = tuple(
        replace(
            source,
            path=start.file(source.path),
            teacher="scores" if source.teacher == "reranker_scores" else source.teacher,
            objective=_objective(source.objective, start),
        )
        for source in data.sources
    )
    curriculum = data.curriculum
    if curriculum is not None:
        curriculum = replace(curriculum, steps=min(curriculum.steps, start.steps))
    return replace(
        data,
        guide=guide,
        sources=sources,
        negatives=min(data.negatives, 2),
        curriculum=curriculum,
    )


def _objective(config: Any, start: Start) -> Any:
    return None if config is None else _shorter(narrow(config, start.width), start.steps)


def _shorter(config: Any, steps: int) -> Any:
    """Counts of steps for a run of ``steps``; and MiniLM's vectors and cosines teach."""
    if isinstance(config, Mapping):
        found = {key: _shorter(value, steps) for key, value in config.items()}
        if "ramp_steps" in found:
            found["ramp_steps"] = min(found["ramp_steps"], steps)
        if "start_step" in found:
            found["start_step"] = min(found["start_step"], steps // 2)
        if found.get("teacher_width"):
            found["teacher_width"] = _TEACHER_WIDTH
        if found.get("teacher_temperature") == 1.0:  # of a cross-encoder's log-odds
            found["teacher_temperature"] = _COSINES
        return found
    if isinstance(config, (list, tuple)):
        return [_shorter(value, steps) for value in config]
    return config


def _task(task: TokenTaskConfig, start: Start) -> TokenTaskConfig:
    if task.task != "rtd":
        return task
    return replace(
        task, generator=start.masked, discriminator=start.model(task.discriminator_family)
    )


def _middle(start: Start) -> int:
    return max(1, start.steps * 2 // 3)


def _kept(reference: str, start: Start) -> str:
    """The model of a checkpoint between, where a merge wants one by its step."""
    name, at, step = reference.partition("@")
    return f"{name}@{_middle(start)}" if at and step.isdecimal() else reference


def leaves(recipe: Recipe) -> dict[str, set[str]]:
    """Stages whose models nothing later starts from, each with the stages that it comes from."""
    lineage: dict[str, set[str]] = {}
    used: set[str] = set()
    last = ""
    for stage in recipe.stages:
        if isinstance(stage, MineStage):
            continue
        parents = {name for name in map(_name, _references(stage)) if name in lineage}
        if "previous" in _references(stage) and last:
            parents.add(last)
        lineage[stage.name] = {stage.name}.union(*(lineage[parent] for parent in parents))
        used |= parents
        last = stage.name
    return {name: found for name, found in lineage.items() if name not in used}


def _references(stage: Stage) -> tuple[str, ...]:
    if isinstance(stage, MergeStage):
        return stage.models
    return (stage.start if isinstance(stage, TrainStage) else getattr(stage, "model", ""),)


def _name(reference: str) -> str:
    return reference.removeprefix("stage://").partition("@")[0]


def sampled(one: EvaluationSet, start: Start) -> EvaluationSet:
    """The set, with the start's sample in the place of its file."""
    return replace(one, source=replace(one.source, path=start.file(one.source.path)))


def held_out(recipe: Recipe) -> dict[str, list[EvaluationSet]]:
    """Test sets by the leaf whose model is measured on them.

    They are the test splits of what the recipe measures while it trains, read as it reads them, and
    of everything else that it learns pairs from. Of several leaves the last that learned from a
    set's data is measured.
    """
    stages = {stage.name: stage for stage in recipe.stages}
    found: dict[str, list[EvaluationSet]] = {}
    seen: set[str] = set()
    for leaf, lineage in reversed(leaves(recipe).items()):
        sets: dict[tuple[str, str], EvaluationSet] = {}
        for name, stage in stages.items():
            if name not in lineage or isinstance(stage, MergeStage):
                continue
            for one in stage.evaluation.sets if stage.evaluation else ():  # type: ignore[union-attr]
                data = _test_of(one.source.path)
                source = replace(one.source, path=data, name=f"{_label(data)} by {one.score}")
                sets[data, one.score] = replace(one, source=source)
        scores = {one.score for one in sets.values()}
        score = "cosine" if "cosine" in scores or not scores else sorted(scores)[0]
        instruction = _INSTRUCTION if _instructed(stages[name] for name in lineage) else ""
        for source in _sources(recipe, lineage):
            data = _test_of(source.path)
            if any(known == data for known, _ in sets):
                continue
            kind = "sts" if _label(data) == "related" else "retrieval"
            plain = replace(
                source,
                path=data,
                name=f"{_label(data)} by {score}",
                query="query",
                positive="positive",
                negatives=(),
                teacher="",
                objective=None,
                entities="",
                instruction=source.instruction or instruction,
                limit=None,
                label="score" if kind == "sts" else "",
            )
            sets[data, score] = EvaluationSet(kind, plain, score)  # type: ignore[arg-type]
        learned = {_test_of(source.path) for source in _sources(recipe, lineage)}
        mine = [
            one
            for (data, _), one in sets.items()
            if data not in seen and (data in learned or not seen)
        ]
        seen |= {one.source.path for one in mine}
        if mine:
            found[leaf] = mine
    return found


def _instructed(stages: Iterable[Stage]) -> bool:
    """Whether queries of these stages are asked with an instruction that somebody has to give."""
    prompts = [
        prompt
        for stage in stages
        if isinstance(stage, TrainStage) and stage.encoder.text_settings
        for prompt in stage.encoder.text_settings.prompts.values()
    ]
    return any("{instruction}" in p.template and not p.instruction for p in prompts)


def _sources(recipe: Recipe, lineage: set[str]) -> list[SourceConfig]:
    """What the stages read pairs or sentences of, with files in the place of mined rows."""
    mined = {stage.name: stage for stage in recipe.stages if isinstance(stage, MineStage)}
    found = []
    for stage in recipe.stages:
        if stage.name not in lineage or isinstance(stage, (MergeStage, MineStage)):
            continue
        for source in stage.data.sources:
            if source.path.startswith("stage://"):
                origin = mined[_name(source.path)].data.sources[0]
                source = replace(source, path=origin.path)
            sentences = Path(source.path).name.startswith("sentences")
            if source.positive or sentences:
                found.append(source)
    return found


def _test_of(path: str) -> str:
    """The test split of a training or development file; structure grades stand for sentences."""
    test = path.replace("-train.", "-test.").replace("-dev.", "-test.")
    return test.replace("sentences-", "related-").replace("entities-", "related-")


def _label(path: str) -> str:
    return Path(path).name.partition("-test.")[0]

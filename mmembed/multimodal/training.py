"""A stage of multimodal training: encoder, data and evaluation put together and trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.gpte.batching import Plan
from mmembed.gpte.config import GuideConfig
from mmembed.gpte.data.batches import Batches, PlannedBatches
from mmembed.gpte.data.sources import Share, listing_of
from mmembed.gpte.data.unchanged import check_unchanged
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.protocols import TrainableEncoder
from mmembed.gpte.trainer import Trainer
from mmembed.gpte.training import stage_accelerator, trained
from mmembed.inputs.items import Item
from mmembed.multimodal.communities import communities, hard_neighbours
from mmembed.multimodal.config import (
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaSourceConfig,
)
from mmembed.multimodal.data.batches import Ahead, MediaExamples
from mmembed.multimodal.data.reading import digests_of, read_sources, streamed_media
from mmembed.multimodal.data.rows import MediaExample, item_hash
from mmembed.multimodal.encoder import MediaEncoder, start_media_encoder
from mmembed.multimodal.evaluating import MediaEvaluator, vector_scores
from mmembed.multimodal.stage import CommunityConfig, MediaTrainStage

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["run_media_train", "run_stage"]

_Encoder = TypeVar("_Encoder", bound=TrainableEncoder)


def run_media_train(stage: MediaTrainStage, context: Context) -> Outcome | None:
    """Train one stage; None if it was stopped early.

    Raises:
        ConfigError, InputError, ModelLoadError, TrainingError, OSError: as
            :class:`mmembed.gpte.trainer.Trainer` and whatever it is built from.
    """

    def examples(encoder: MediaEncoder, sources: Sequence[Sequence[MediaExample]]) -> MediaExamples:
        guide = stage.data.guide
        if guide is not None:
            guide = replace(guide, model=context.model(guide.model))
        return MediaExamples(
            sources,
            encoder.embedder.backbone,
            stage.data.negatives,
            guide=_guide(guide, sources),
            skip=stage.data.bad_rows == "skip",
            task=encoder.task,
        )

    def evaluator(
        config: MediaEvaluationConfig, resolve: Callable[[MediaSourceConfig], MediaSourceConfig]
    ) -> MediaEvaluator[MediaEncoder]:
        return MediaEvaluator(config, resolve, vector_scores)

    return run_stage(stage, context, start_media_encoder, examples, evaluator)


def run_stage(
    stage: MediaTrainStage,
    context: Context,
    start_encoder: Callable[[MediaEncoderConfig, str | None], _Encoder],
    examples_of: Callable[[_Encoder, Sequence[Sequence[MediaExample]]], MediaExamples],
    evaluator_of: Callable[..., MediaEvaluator[_Encoder]],
) -> Outcome | None:
    """Train one stage of any kind of model over media; None if it was stopped early.

    Args:
        start_encoder: makes the encoder of the stage's settings and start weights.
        examples_of: the rows that this encoder reads, of the stage's sources.
        evaluator_of: an evaluator of the stage's sets.
    """
    from accelerate.utils import set_seed

    folder, seed = context.folder, context.recipe.seed
    with stage_accelerator(stage, folder) as accelerator:
        set_seed(seed)  # of new heads, the same on every process
        weights = None if stage.start == "base" else context.model(stage.start)
        encoder = start_encoder(stage.encoder, weights)
        sources = [] if stage.data.streaming else read_sources(stage.data, context.source)
        examples = examples_of(encoder, sources)
        if stage.data.streaming:
            streamed = [context.source(source).path for source in stage.data.sources]
            digests = {path: listing_of(path) for path in streamed}
            batches, sizes = _streamed(stage, examples, context, accelerator)
        else:
            digests = digests_of(stage.data, sources)
            batches, sizes = _planned(stage, encoder, examples, sources, accelerator, seed)
        if accelerator.is_main_process:
            check_unchanged(folder, digests)
        evaluator = None
        if stage.evaluation is not None:
            evaluator = evaluator_of(stage.evaluation, context.source)
        start = evaluator(_moved(encoder, accelerator)) if evaluator else {}
        set_seed(seed, device_specific=True)  # dropout differs between processes
        trainer = Trainer(
            stage,
            encoder,
            batches,
            folder,
            accelerator,
            seed=seed,
            evaluate=evaluator,
            on_step=context.on_step,
        )
        return trained(trainer, context, weights, sizes, start)


def _moved(encoder: _Encoder, accelerator: Accelerator) -> _Encoder:
    moved: _Encoder = encoder.to(accelerator.device)
    return moved


def _streamed(
    stage: MediaTrainStage, examples: MediaExamples, context: Context, accelerator: Accelerator
) -> tuple[Batches, Mapping[str, int]]:
    """Batches, and -1 for the rows of every source."""
    data = stage.data
    share = Share(accelerator.process_index, accelerator.num_processes)
    streamed = streamed_media(
        data, stage.batch, examples, context.source, seed=context.recipe.seed, share=share
    )
    return Ahead(streamed, data.ahead), {source.name or source.path: -1 for source in data.sources}


def _planned(
    stage: MediaTrainStage,
    encoder: TrainableEncoder,
    examples: MediaExamples,
    sources: Sequence[Sequence[MediaExample]],
    accelerator: Accelerator,
    seed: int,
) -> tuple[Batches, Mapping[str, int]]:
    data = stage.data
    names = tuple(source.name or source.path for source in data.sources)
    clusters = None
    if stage.communities is not None:
        assert isinstance(encoder, MediaEncoder)
        clusters = _communities(stage.communities, encoder, sources, accelerator, seed)
    plan = Plan(
        tuple(len(source) for source in sources),
        stage.batch,
        seed,
        accelerator.num_processes,
        tuple(source.weight for source in data.sources),
        None,
        clusters,
        names,
    )
    planned = PlannedBatches(examples, plan, accelerator.process_index)
    sizes = {name: len(source) for name, source in zip(names, sources, strict=True)}
    return Ahead(planned, data.ahead), sizes


def _guide(
    config: GuideConfig | None, sources: Sequence[Sequence[MediaExample]]
) -> dict[int, np.ndarray[Any, np.dtype[np.float32]]]:
    """The guide's vector of every item, by the item's hash."""
    if config is None:
        return {}
    guide = Embedder.from_pretrained(config.model)
    sides: dict[str, dict[int, Item]] = {"query": {}, "document": {}}
    for example in (one for source in sources for one in source):
        sides["query"].setdefault(item_hash(example.query), example.query)
        for item in example.items[1:]:
            sides["document"].setdefault(item_hash(item), item)
    found: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
    for side, items in sides.items():
        vectors = _vectors(guide, list(items.values()), config.role or side)
        found.update(zip(items, vectors, strict=True))
    return found


def _communities(
    config: CommunityConfig,
    encoder: MediaEncoder,
    sources: Sequence[Sequence[MediaExample]],
    accelerator: Accelerator,
    seed: int,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The community of every row; those of different sources are different."""
    teacher = Embedder.from_pretrained(config.teacher) if config.teacher else encoder.embedder
    _moved(encoder, accelerator).eval()
    found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    first = 0
    for source in sources:
        queries = _vectors(teacher, [one.query for one in source], "query")
        positives = _vectors(teacher, [one.positive for one in source], "document")
        neighbours = hard_neighbours(queries, positives, skip=config.skip, keep=config.keep)
        labels = communities(neighbours, config.size, seed=seed, method=config.method)
        found.append(labels + first)
        first += int(labels.max()) + 1
    encoder.train()
    return np.concatenate(found)


def _vectors(teacher: Embedder, items: list[Item], role: Any) -> np.ndarray[Any, Any]:
    """Unit vectors; an item that cannot be read is far from all others."""
    vectors = teacher.encode(items, role=role, on_error="none", show_progress=False)
    if not len(vectors):
        raise ConfigError("communities: a source has no rows")
    return np.nan_to_num(vectors)

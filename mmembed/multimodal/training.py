"""A stage of multimodal training: encoder, data and evaluation put together and trained."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmembed.embedder import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.batching import Plan
from mmembed.gpte.config import GuideConfig
from mmembed.gpte.data.batches import Batches, PlannedBatches
from mmembed.gpte.data.examples import Report
from mmembed.gpte.data.unchanged import check_unchanged
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.protocols import TrainableEncoder
from mmembed.gpte.trainer import Trainer
from mmembed.gpte.training import stage_accelerator, trained
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_stream
from mmembed.inputs.items import Item
from mmembed.multimodal.communities import communities, hard_neighbours
from mmembed.multimodal.config import (
    MediaDataConfig,
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaSourceConfig,
)
from mmembed.multimodal.data.batches import Ahead, MediaExamples
from mmembed.multimodal.data.rows import MediaExample, item_hash, media_examples
from mmembed.multimodal.encoder import MediaEncoder, start_media_encoder
from mmembed.multimodal.evaluating import MediaEvaluator, vector_scores
from mmembed.multimodal.stage import CommunityConfig, MediaTrainStage

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["read_sources", "run_media_train", "run_stage"]

_log = logging.getLogger(__name__)
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
        sources = read_sources(stage.data, context.source)
        if accelerator.is_main_process:
            check_unchanged(folder, _digests(stage.data, sources))
        examples = examples_of(encoder, sources)
        batches, sizes = _batches(stage, encoder, examples, sources, accelerator, seed)
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


def _digests(data: MediaDataConfig, sources: Sequence[Sequence[MediaExample]]) -> dict[str, str]:
    """What each source's rows hold, media by path or by content."""
    found = {}
    for source, examples in zip(data.sources, sources, strict=True):
        digest = hashlib.blake2b(digest_size=12)
        for one in examples:
            hashes = [item_hash(item) for item in one.items]
            digest.update(repr((hashes, one.label, one.teacher)).encode())
        found[source.path] = digest.hexdigest()
    return found


def read_sources(
    data: MediaDataConfig,
    resolve: Callable[[MediaSourceConfig], MediaSourceConfig] = lambda source: source,
) -> list[list[MediaExample]]:
    """The examples of every source, checked before anything is trained.

    A report of what is left out goes to the log: broken rows, empty sides, rows that are held out
    for testing, equal rows, and, where asked for, media that cannot be read.

    Raises:
        InputError: a bad row where such rows stop the run, or a source without a usable row.
    """
    held_out = {
        item_hash(item)
        for source in data.held_out
        for example in media_examples(resolve(source), Report(source.path), "skip")
        for item in (example.query, example.positive)
    }
    found = []
    for source in map(resolve, data.sources):
        report = Report(source.name or source.path)
        kept: list[MediaExample] = []
        seen: set[tuple[int, int]] = set()
        for example in media_examples(source, report, data.bad_rows):
            pair = (item_hash(example.query), item_hash(example.positive))
            problem = _problem(pair, held_out, seen)
            if problem and problem != "twice" and data.bad_rows == "raise":
                raise InputError(
                    str(example.place), f"is {problem}", "take it out, or set data.bad_rows: skip"
                )
            if problem:
                report.add(problem, example.place, problem)
                continue
            seen.add(pair)
            kept.append(example)
        if data.check_media:
            kept = _readable(kept, report, data.bad_rows)
        report.kept = len(kept)
        report.log()
        if not kept:
            told = f" ({'; '.join(report.first)})" if report.first else ""
            raise InputError(source.path, f"has no usable row{told}", "is it the right file?")
        found.append(kept)
    return found


def _problem(pair: tuple[int, int], held_out: set[int], seen: set[tuple[int, int]]) -> str:
    if held_out & set(pair):
        return "held out for testing"
    return "twice" if pair in seen else ""


def _readable(examples: list[MediaExample], report: Report, bad_rows: str) -> list[MediaExample]:
    """The examples whose media can all be decoded."""
    flat = [(number, item) for number, one in enumerate(examples) for item in one.items]
    broken: dict[int, InputError] = {}
    budget = MediaBudget(max_frames=2)
    for position, decoded in decode_stream((item for _, item in flat), budget):
        if isinstance(decoded, InputError):
            broken.setdefault(flat[position][0], decoded)
    for number, error in broken.items():
        place = examples[number].place
        if bad_rows == "raise":
            hint = "mend the row, or set data.bad_rows: skip"
            raise InputError(str(place), str(error), hint)
        report.add("unreadable media", place, str(error))
    return [one for number, one in enumerate(examples) if number not in broken]


def _moved(encoder: _Encoder, accelerator: Accelerator) -> _Encoder:
    moved: _Encoder = encoder.to(accelerator.device)
    return moved


def _batches(
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

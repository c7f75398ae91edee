"""A training stage: encoder, data and evaluation put together, trained, and saved with its card."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed.errors import ConfigError
from mmembed.gpte.batching import Plan
from mmembed.gpte.card import write_card
from mmembed.gpte.config import DataConfig, EvaluationConfig
from mmembed.gpte.data.batches import Batches, Examples, ExampleSet, PlannedBatches
from mmembed.gpte.data.guides import (
    GuideVectors,
    clusters_of,
    corpus_sample,
    guide_vectors,
    pair_vectors,
)
from mmembed.gpte.data.sources import listing_of
from mmembed.gpte.data.streams import streamed_texts
from mmembed.gpte.data.tokenised import TextRows, TokenisedSource, tokenised
from mmembed.gpte.data.unchanged import check_unchanged
from mmembed.gpte.evaluating import Evaluator
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import TrainStage
from mmembed.gpte.starting import start_encoder
from mmembed.gpte.task_building import task_of
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import TokenTask
from mmembed.gpte.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

__all__ = ["Extension", "run_train", "stage_accelerator", "trained"]


@dataclass(frozen=True)
class Extension:
    """What kinds of stages from elsewhere change about a run of the trainer.

    Attributes:
        tasks: token tasks beside the stage's own.
        examples: gives the rows of a step in the place of the tokenised ones; no streams then.
    """

    tasks: Callable[[TextEncoder], Mapping[str, TokenTask]] | None = None
    examples: Callable[[TextEncoder, ExampleSet], Examples] | None = None


def run_train(
    stage: TrainStage,
    context: Context,
    extension: Extension | None = None,
) -> Outcome | None:
    """Train one stage; None if it was stopped early.

    Args:
        extension: what a kind of stage from elsewhere does besides.

    Raises:
        ConfigError, InputError, ModelLoadError, TrainingError, OSError: as
            :class:`mmembed.gpte.trainer.Trainer` and whatever it is built from.
    """
    from accelerate.utils import set_seed

    folder, seed = context.folder, context.recipe.seed
    with stage_accelerator(stage, folder) as accelerator:
        set_seed(seed)  # of new heads, the same on every process
        weights = None if stage.start == "base" else context.model(stage.start)
        encoder = start_encoder(stage.encoder, weights)
        data = context.data(stage.data)
        rows = TextRows(encoder.tokenizing, encoder.settings)
        cache = Path(data.cache) if data.cache else folder.parent / ".cache"
        extension = extension or Extension()
        made = None if extension.examples is None else partial(extension.examples, encoder)
        batches, sizes, digests = _batches(stage, data, rows, cache, accelerator, seed, made)
        if accelerator.is_main_process:
            check_unchanged(folder, digests)
        if encoder.context is not None:
            encoder.context.remember(_corpus(batches, encoder.context.settings.documents, seed))
        tasks = {config.key: task_of(config, encoder) for config in stage.tasks}
        if len(tasks) < len(stage.tasks):
            raise ConfigError(f"stage {stage.name}: give token tasks of one kind different labels")
        if extension.tasks is not None:
            tasks |= extension.tasks(encoder)
        evaluator = _evaluator(stage.evaluation, context)
        start = evaluator(encoder.to(accelerator.device)) if evaluator else {}
        set_seed(seed, device_specific=True)  # dropout differs between processes
        positive = stage.encoder.positive_dropout
        trainer = Trainer(
            stage,
            encoder,
            batches,
            folder,
            accelerator,
            seed=seed,
            tasks=tasks,
            evaluate=evaluator,
            on_step=context.on_step,
            rates={} if positive is None else {"positive": positive},
        )
        return trained(trainer, context, weights, sizes, start)


def trained(
    trainer: Trainer,
    context: Context,
    weights: str | None,
    sizes: Mapping[str, int],
    start: Mapping[str, float],
) -> Outcome | None:
    """Run the trainer to its end, and write model and card; None if it was stopped early.

    Args:
        weights: what the stage started from, for the card.
        sizes: rows by the name of their source (-1 where not known), for the card.
        start: metrics before the first step.
    """
    stage, accelerator = trainer.stage, trainer.accelerator
    if stage.trackers:
        accelerator.init_trackers(context.recipe.name)
    finished = trainer.run(context.stop_after)
    for tracker in accelerator.trackers:
        tracker.finish()
    if not finished:
        return None
    model, metrics = _finished_model(trainer)
    if accelerator.is_main_process:
        write_card(model, context.recipe, stage, weights, sizes, start, metrics)
    accelerator.wait_for_everyone()
    return Outcome(trainer.folder, model, metrics=metrics, start=start)


@contextlib.contextmanager
def stage_accelerator(stage: TrainStage, folder: Path) -> Iterator[Accelerator]:
    """An accelerator for a stage, whose trackers end with it.

    Raises:
        ConfigError: DeepSpeed is asked for and absent.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if asked and find_spec("deepspeed") is None:
        raise ConfigError("training under DeepSpeed needs it: pip install 'deepspeed>=0.19.8'")
    accelerator = Accelerator(
        mixed_precision=stage.precision,
        log_with=list(stage.trackers) or None,
        project_dir=str(folder),
    )
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        # The next stage may ask for another precision, which accelerate keeps for the process.
        AcceleratorState._reset_state()


def _batches(
    stage: TrainStage,
    data: DataConfig,
    rows: TextRows,
    cache: Path,
    accelerator: Accelerator,
    seed: int,
    made: Callable[[ExampleSet], Examples] | None,
) -> tuple[Batches, Mapping[str, int], Mapping[str, str]]:
    """The stage's batches; rows by the name of their source (-1 where not known); and digests."""
    rank, world = accelerator.process_index, accelerator.num_processes
    if data.streaming:
        streamed = streamed_texts(data, stage.batch, rows, seed, rank, world)
        listed = {source.path: listing_of(source.path) for source in data.sources}
        return streamed, {source.name or source.path: -1 for source in data.sources}, listed
    with accelerator.main_process_first():  # the others find what the first one wrote
        sources = [
            tokenised(source, rows, cache, workers=data.workers, bad_rows=data.bad_rows)
            for source in data.sources
        ]
        guides = _guides(data, sources, accelerator)
    clusters = None
    if stage.batch.order == "contextual" and guides:
        wanted = stage.batch.cluster_rows or stage.batch.size
        clusters = clusters_of(pair_vectors(sources, guides), wanted, seed=seed)
    examples = ExampleSet(sources, data.negatives, guides, data.curriculum)
    plan = Plan(
        tuple(len(source) for source in sources),
        stage.batch,
        seed,
        world,
        tuple(source.weight for source in data.sources),
        examples.lengths if stage.batch.tokens is not None else None,
        clusters,
        tuple(source.name for source in sources),
    )
    sizes = {source.name: len(source) for source in sources}
    digests = {source.name: source.folder.name for source in sources}
    given = examples if made is None else made(examples)
    return PlannedBatches(given, plan, rank, data.workers), sizes, digests


def _corpus(batches: Batches, documents: int, seed: int) -> Tensor:
    """The first stage's vectors of some documents of the training data."""
    examples = getattr(batches, "examples", None)
    if not isinstance(examples, ExampleSet):
        raise ConfigError("settings.context samples the documents: not with data.streaming")
    return corpus_sample(examples.sources, examples.guides, documents, seed)


def _guides(
    data: DataConfig, sources: Sequence[TokenisedSource], accelerator: Accelerator
) -> list[GuideVectors]:
    if data.guide is None:
        return []
    guide = TextEncoder.from_pretrained(data.guide.model).to(accelerator.device).eval()
    name, role = data.guide.model, data.guide.role
    return [
        guide_vectors(guide, name, config, source, role)
        for config, source in zip(data.sources, sources, strict=True)
    ]


def _evaluator(config: EvaluationConfig | None, context: Context) -> Evaluator | None:
    if config is None:
        return None
    return Evaluator(config, context.source)


def _finished_model(trainer: Trainer) -> tuple[Path, dict[str, float]]:
    """The stage's model: the best if one was asked for, else the last; and its metrics."""
    stage, accelerator = trainer.stage, trainer.accelerator
    model, metrics = trainer.folder / "model", dict(trainer.progress.metrics)
    best = trainer.folder / "best"
    if stage.evaluation is not None and stage.evaluation.best and best.exists():
        if accelerator.is_main_process:
            with whole_folder(model) as partial:
                shutil.copytree(best, partial, dirs_exist_ok=True)
        metrics |= {"step": trainer.progress.best_step}
        metrics |= trainer.progress.best_metrics
    else:
        trainer.save_model(model)
    accelerator.wait_for_everyone()
    return model, metrics

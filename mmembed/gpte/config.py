"""What a stage of a recipe may say, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmembed.errors import ConfigError
from mmembed.gpte.curriculum import Curriculum
from mmembed.gpte.objectives.scoring import Score
from mmembed.gpte.text_settings import TextSettings

__all__ = [
    "BatchConfig",
    "CheckpointConfig",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "EvaluationSet",
    "GuideConfig",
    "Lengthen",
    "LoraSettings",
    "MomentumConfig",
    "ScheduleConfig",
    "SourceConfig",
]


@dataclass(frozen=True)
class LoraSettings:
    """Adapters; see :func:`mmembed.gpte.lora.add_lora`."""

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    dora: bool = False


@dataclass(frozen=True)
class Lengthen:
    """More positions than the backbone was trained on; see :mod:`mmembed.gpte.long_context`."""

    method: Literal["tile", "interpolate", "rope", "ntk", "yarn"]
    tokens: int


@dataclass(frozen=True)
class EncoderConfig:
    """The model of a stage.

    Attributes:
        backbone: folder or hub name, where the stage starts from the base.
        family: its architecture as transformers names it (``model_type``); what a tiny random
            stand-in is built of.
        settings: fields of :class:`mmembed.gpte.text_settings.TextSettings`.
        lora: adapters to train over a frozen model; merged in whatever is saved.
        train: which of the model's own parameters learn: all, the biases alone (BitFit), or none,
            which leaves heads and prefixes.
        lm_head: load the language-model head too, for token tasks.
        dropout: sets every dropout of the model; None keeps what its config says.
        positive_dropout: the rate at which positives are read, where it is another, for two views
            of one text (SCD).
        lengthen: more positions.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    backbone: str
    family: str = "bert"
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    train: Literal["all", "biases", "none"] = "all"
    lm_head: bool = False
    dropout: float | None = None
    positive_dropout: float | None = None
    lengthen: Lengthen | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        TextSettings.from_dict(self.settings)
        if self.lora is not None and self.train == "biases":
            raise ConfigError("LoRA freezes the model, so its biases cannot learn: pick one")

    @property
    def text_settings(self) -> TextSettings | None:
        """The settings, or None where the model's own shall be used."""
        return TextSettings.from_dict(self.settings) if self.settings else None


@dataclass(frozen=True)
class SourceConfig:
    """One file or data set of rows.

    Attributes:
        path: a file, a glob or a folder of JSONL (``.gz``, ``.xz``), Parquet or WebDataset tar
            files; ``hf://NAME`` or ``hf://NAME:SPLIT`` for a Hugging Face data set; ``stage://NAME``
            for what an earlier stage of this recipe wrote.
        name: for logs; the path's stem by default.
        weight: its share of the draws where the mixture is weighted.
        query, positive: columns of the texts; the same column twice gives two views of one text
            (SimCSE). An empty ``positive`` means that rows are single texts.
        negatives: columns of hard negatives, each a text or a list of texts.
        label: column of a similarity, a number.
        teacher: column of a teacher's scores: a list, of the positive and then the negatives.
        entities: column of the numbers of entities: the one that the query is about, then hard ones
            that it is not (EASE).
        instruction: fills the query prompt's ``{instruction}``.
        instruction_column: a column that holds it instead, row by row.
        document_instruction: fills the document prompt's.
        query_role, document_role: whose prompts dress the texts.
        objective: an objective for this source alone; batches must then be homogeneous.
        limit: read no more rows.
        licence: for the model card.
    """

    path: str
    name: str = ""
    weight: float = 1.0
    query: str = "query"
    positive: str = "positive"
    negatives: tuple[str, ...] = ()
    label: str = ""
    teacher: str = ""
    entities: str = ""
    instruction: str = ""
    instruction_column: str = ""
    document_instruction: str = ""
    query_role: str = "query"
    document_role: str = "document"
    objective: Mapping[str, Any] | None = None
    limit: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight of {self.path}: give a positive number, not {self.weight}")
        if not self.query:
            raise ConfigError(f"source {self.path}: name the column of the queries")
        if self.negatives and not self.positive:
            raise ConfigError(f"source {self.path}: negatives without a positive")


@dataclass(frozen=True)
class GuideConfig:
    """A frozen model whose vectors go with the batch: GIST masks, teachers, clusters.

    Attributes:
        model: folder or hub name of a text encoder, or ``stage://NAME``.
        role: read every text under this role; by default queries and documents under theirs.
    """

    model: str
    family: str = "bert"
    role: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """What a stage learns from.

    Attributes:
        negatives: hard negatives per query in a batch, drawn from those that a row has.
        curriculum: draw them by their scores, which every source with negatives then names as its
            ``teacher``, and harder ones from step to step; evenly without.
        bad_rows: what a broken or one-sided row does: stop the run, or be counted and left out.
        streaming: read rows as they come, for sources too large to tokenise once; the order is
            then a shuffle within ``buffer`` rows, and ``schedule.steps`` must say how long.
        workers: processes that tokenise, and that assemble batches.
        cache: folder of tokenised sources; ``.cache`` beside the run's stages by default.
    """

    sources: tuple[SourceConfig, ...]
    negatives: int = 0
    curriculum: Curriculum | None = None
    bad_rows: Literal["raise", "skip"] = "raise"
    streaming: bool = False
    buffer: int = 10_000
    workers: int = 0
    cache: str | None = None
    guide: GuideConfig | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data: name at least one source")
        if self.streaming and self.guide is not None:
            raise ConfigError("data: a guide reads every text beforehand, and streams have no end")
        if self.curriculum is not None:
            scored = all(one.teacher for one in self.sources if one.negatives)
            if self.streaming or not self.negatives or not scored:
                raise ConfigError(
                    "data.curriculum draws negatives by their scores: set data.negatives, name the "
                    "scores of every source with negatives as its teacher, and do not stream"
                )
        if self.negatives < 0 or self.workers < 0 or self.buffer < 1:
            raise ConfigError("data: negatives and workers are 0 or more, the buffer 1 or more")


@dataclass(frozen=True)
class BatchConfig:
    """How rows become batches. Duplicates are masked in the loss (``masks: [duplicates]``).

    Attributes:
        size: rows of a batch over all processes.
        tokens: most tokens of a batch over all processes; batches then hold rows of like length,
            at most ``size`` of them.
        order: rows of all sources mixed; one source a batch (homogeneous); blocks of one source
            each, several a batch (interleaved, VLM2Vec-V2); or neighbours in the guide's space
            together (contextual, CDE).
        block: rows of a block of interleaved batches.
        mixture: every row once an epoch (all), or draws in proportion to the sources' weights, or
            to their sizes to the power ``alpha``, as many a epoch as there are rows.
        cluster_rows: rows of a contextual cluster, filled up to whole batches; the size by default.
        chunk_rows, chunk_tokens: encode this much at a time through the gradient cache.
        accumulate: batches whose gradients are averaged into one step.
    """

    size: int = 32
    tokens: int | None = None
    order: Literal["mixed", "homogeneous", "interleaved", "contextual"] = "mixed"
    block: int = 64
    mixture: Literal["all", "weights", "sizes"] = "all"
    alpha: float = 0.5
    cluster_rows: int | None = None
    chunk_rows: int | None = None
    chunk_tokens: int | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        numbers = {"size": self.size, "accumulate": self.accumulate, "block": self.block}
        for name in ("tokens", "cluster_rows", "chunk_rows", "chunk_tokens"):
            if (value := getattr(self, name)) is not None:
                numbers[name] = value
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"batch: {name} is at least 1, not {value}")
        if self.order in ("contextual", "interleaved") and self.tokens is not None:
            raise ConfigError(f"batch: {self.order} batches are counted in rows, not in tokens")

    @property
    def cached(self) -> bool:
        """Whether the gradient cache is used."""
        return self.chunk_rows is not None or self.chunk_tokens is not None


@dataclass(frozen=True)
class ScheduleConfig:
    """How long and how fast to learn, in optimiser steps.

    Attributes:
        epochs: passes over the data, unless ``steps`` is given.
        lr: highest learning rate of the model.
        head_lr: that of heads, prefixes and the objective's own parameters; ``lr`` by default.
        warmup: steps of linear growth, or below 1 their share of all steps.
        decay: how the rate falls afterwards, to ``final`` times the highest; ``inverse_sqrt`` falls
            with the root of the steps since warm-up's length.
        weight_decay: of matrices; never of biases, norms and the objective's parameters.
        clip: largest norm of the gradient; 0 leaves it.
    """

    epochs: float = 1.0
    steps: int | None = None
    lr: float = 2e-5
    head_lr: float | None = None
    warmup: float = 0.0
    decay: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    final: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        if (self.steps is None and not self.epochs > 0) or (self.steps or 1) < 1:
            raise ConfigError("schedule: give steps of 1 or more, or epochs above 0")
        if not self.lr > 0 or self.warmup < 0 or self.clip < 0:
            raise ConfigError("schedule: lr is positive, warmup and clip are 0 or more")


@dataclass(frozen=True)
class MomentumConfig:
    """A second encoder that follows the first (MoCo).

    Attributes:
        decay: what it keeps of itself every step: 0.999 in MoCo, 0.995 in ESimCSE.
        queue: keys of earlier batches kept as further negatives; 0 for none.
        positives: which encoder reads the positives of the batch itself.
        sides: whose keys the second encoder makes and queues: of positives, or of queries too, for
            the objective ``moco``, while the first encoder reads both sides itself.
        final: save the follower in place of the encoder (exponential moving average).
    """

    decay: float = 0.999
    queue: int = 0
    positives: Literal["encoder", "momentum"] = "encoder"
    sides: Literal["positive", "both"] = "positive"
    final: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.queue < 0:
            raise ConfigError("momentum: decay lies in [0, 1), and queue is 0 or more")
        if self.sides == "both" and self.positives == "momentum":
            raise ConfigError("momentum: with sides both the encoder reads the positives too")


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out data: Spearman of labelled pairs (sts), or nDCG@10 of retrieval among all positives.

    Attributes:
        source: read like a training source; rows of equal query or document text are judged
            relevant to each other.
        score: what compares the texts, by the names of objectives: ``sparse`` and ``maxsim``
            measure those heads. For several, list the source once each, under different names.
    """

    kind: Literal["sts", "retrieval"]
    source: SourceConfig
    score: Score = "cosine"


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation during training.

    Attributes:
        every: optimiser steps between evaluations; 0 evaluates at the end only.
        best: a metric, such as ``stsb/spearman``, whose best model is kept as the stage's result.
    """

    sets: tuple[EvaluationSet, ...]
    every: int = 0
    best: str = ""


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of a run.

    Attributes:
        every: steps between checkpoints to resume from; 0 keeps the end alone.
        keep: how many of them.
        models: also save the model at each, for merging (``stage://NAME@all``).
    """

    every: int = 0
    keep: int = 1
    models: bool = False

"""What a stage of multimodal training may say, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmembed.errors import ConfigError
from mmembed.gpte.config import GuideConfig, LoraSettings

__all__ = [
    "ItemColumns",
    "MediaDataConfig",
    "MediaEncoderConfig",
    "MediaEvaluationConfig",
    "MediaEvaluationSet",
    "MediaSourceConfig",
]

ItemColumns = str | Mapping[str, str]
"""Where an item stands in a row: one column that holds an input (a text, or an object with any of
``text``, ``image``, ``video``, ``document``), or a column for each of these keys."""


@dataclass(frozen=True)
class MediaEncoderConfig:
    """The model of a multimodal stage.

    Attributes:
        backbone: ``"mini"``, a folder or a hub name, where the stage starts from the base.
        family: its architecture (``model_type``); what a tiny random stand-in is built of.
        preset: the published conventions that the model is read by; found by its name by default.
        settings: fields of :class:`mmembed.embedder_config.EmbedderConfig` that differ.
        lora: adapters over a frozen language model, merged in whatever is saved.
        task: train ``lora`` as the task adapter of this name instead, which is saved as one, over a
            frozen model; one that the model has already is trained on.
        clone: the task adapter that a new one starts as a copy of.
        train: which of the model's own parameters learn: everything, all but the vision tower
            (``language``), or none, which leaves heads and adapters.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    backbone: str
    family: str = "qwen2_vl"
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    task: str = ""
    clone: str = ""
    train: Literal["all", "language", "none"] = "language"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.task and self.train != "none":
            raise ConfigError("encoder: a task adapter trains over a frozen model: set train: none")


@dataclass(frozen=True)
class MediaSourceConfig:
    """One file or data set of rows whose items are of any modality.

    Attributes:
        path: JSONL, Parquet or WebDataset files, a folder or a glob of them, or ``hf://NAME``;
            ``stage://NAME`` for what an earlier stage wrote.
        root: folder that media paths are relative to; the file's own by default.
        name: for logs; the path's stem by default.
        task: what kind of task it is, for logs and cards, e.g. ``"T->I"``.
        weight: its share of the draws where the mixture is weighted.
        query, positive: columns of the items.
        negatives: columns of hard negatives, each an item or a list of items.
        label: column of a similarity, a number.
        teacher: column of a teacher's scores: a list, of the positive and then the negatives.
        instruction: precedes every query.
        instruction_column: a column that holds it instead, row by row.
        target_instruction: precedes every target.
        objective: an objective for this source alone; batches must then be homogeneous.
        where: keep rows whose columns have these values.
        limit: read no more rows.
        licence: for the model card.
    """

    path: str
    root: str = ""
    name: str = ""
    task: str = ""
    weight: float = 1.0
    query: ItemColumns = "query"
    positive: ItemColumns = "positive"
    negatives: tuple[str, ...] = ()
    label: str = ""
    teacher: str = ""
    instruction: str = ""
    instruction_column: str = ""
    target_instruction: str = ""
    objective: Mapping[str, Any] | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight of {self.path}: give a positive number, not {self.weight}")
        keys = ("text", "image", "video", "document")
        for columns in (self.query, self.positive):
            for key in columns if isinstance(columns, Mapping) else ():
                if key not in keys:
                    raise ConfigError(
                        f"source {self.path}: an item has {', '.join(keys)}, and no {key!r}"
                    )


@dataclass(frozen=True)
class MediaDataConfig:
    """What a multimodal stage learns from.

    Attributes:
        negatives: hard negatives per query in a batch, drawn from those that a row has.
        bad_rows: what a row does that is broken, or whose media cannot be read, at the start or in
            the middle of training: stop the run, or be counted and left out.
        check_media: open every medium before training, and report what cannot be read.
        guide: a frozen model whose vectors of all items go with the batch: a teacher, GIST masks.
        held_out: sources whose queries and positives must not be trained on; a row that holds one
            of them counts as leaked, and is left out or stops the run as ``bad_rows`` says.
        ahead: batches that are decoded while another one is trained on.
        streaming: read rows as they come, for sources too large to hold; each process opens its own
            files where a source has enough of them, ``schedule.steps`` must say how long, and equal
            rows are not looked for.
        buffer: rows of a streamed source, media by bytes included, that are shuffled together.
    """

    sources: tuple[MediaSourceConfig, ...]
    negatives: int = 0
    bad_rows: Literal["raise", "skip"] = "raise"
    check_media: bool = False
    guide: GuideConfig | None = None
    held_out: tuple[MediaSourceConfig, ...] = ()
    ahead: int = 2
    streaming: bool = False
    buffer: int = 1000

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data: name at least one source")
        if self.negatives < 0 or self.ahead < 0 or self.buffer < 1:
            raise ConfigError("data: negatives and ahead are 0 or more, the buffer 1 or more")
        if self.streaming and (self.guide is not None or self.check_media):
            raise ConfigError(
                "data: a guide and check_media read every row beforehand, and streams have no end"
            )


@dataclass(frozen=True)
class MediaEvaluationSet:
    """Held-out retrieval: every different query among all different positives of the source.

    Attributes:
        reverse: ask with the positives for the queries.
        score: of dense vectors, or of token vectors.
        retriever: in the stage of a reranker, the embedder whose best documents it orders, as it is
            used; the others follow in the embedder's order. By default it orders all documents.
        top: how many the reranker orders.
        retriever_weight: what the retriever's score counts for beside the reranker's log-odds (1 in
            BLIP).
    """

    source: MediaSourceConfig
    reverse: bool = False
    score: Literal["cosine", "maxsim"] = "cosine"
    retriever: str = ""
    top: int = 100
    retriever_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"evaluation: top is at least 1, not {self.top}")
        if self.retriever and self.reverse:
            raise ConfigError(
                "evaluation: a retriever finds documents of queries: leave out reverse"
            )


@dataclass(frozen=True)
class MediaEvaluationConfig:
    """Evaluation during training.

    Attributes:
        every: optimiser steps between evaluations; 0 evaluates at the end only.
        best: a metric, such as ``figures/ndcg@10``, whose best model is the stage's result.
    """

    sets: tuple[MediaEvaluationSet, ...]
    every: int = 0
    best: str = ""

"""The kinds of stages that recipes of code models have beside those of :mod:`mmembed.gpte`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from codeembed.pairs.clones import clone_of
from codeembed.pairs.consistency import consistent
from codeembed.parse import ParseTimeoutError
from codeembed.training.config import AugmentConfig, CodeTaskConfig, GraphConfig
from codeembed.training.judging import JudgeStage, ScoreStage, run_judge, run_score
from codeembed.training.matched import MatchedStage, run_matched
from codeembed.training.rows import (
    TINY_ROWS,
    few_rows,
    read,
    tiny_embedder,
    unit_vectors,
    written,
)
from codeembed.training.views import VIEWS, noisy_text
from codeembed.transform.tree import Code
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import DataConfig, SourceConfig
from mmembed.gpte.data.sources import raw_rows
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import TrainStage
from mmembed.gpte.run import Runner

if TYPE_CHECKING:
    from mmembed.gpte.data.batches import Examples, ExampleSet
    from mmembed.gpte.text_encoder import TextEncoder
    from mmembed.gpte.token_tasks import TokenTask

__all__ = [
    "CODE_RUNNERS",
    "CODE_STAGES",
    "CodeTrainStage",
    "FilterStage",
    "ViewStage",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeTrainStage(TrainStage):
    """One run of the trainer with heads that know the syntax tree: ``kind: code``.

    Attributes:
        heads: What else is predicted of the tokens of code.
        augment: Tokens of the rows that the momentum encoder reads are masked or replaced by their
            types; the encoder reads the rows as they are.
        graph: Variables follow the code, with attention along its data flow (GraphCodeBERT).
    """

    kind: ClassVar[str] = "code"

    heads: tuple[CodeTaskConfig, ...] = ()
    augment: AugmentConfig | None = None
    graph: GraphConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment is not None and self.momentum is None:
            raise ConfigError(f"stage {self.name}: augment changes keys: give momentum")
        changed = [part for part in (self.augment, self.graph) if part is not None]
        if len(changed) > 1 or (changed and self.data.streaming):
            raise ConfigError(
                f"stage {self.name}: augment and graph change tokenised rows: one of the two, and "
                "no streaming"
            )

    @property
    def learns_tokens(self) -> bool:
        """Whether it has a loss over tokens."""
        return bool(self.tasks or self.heads)


@dataclass(frozen=True)
class ViewStage:
    """Rows whose columns are views of code: ``kind: views``.

    Rows are those of the source; a row that some view has nothing to show of is left out.

    Attributes:
        source: File of rows, or ``stage://NAME``.
        columns: New column to what it joins: names of :data:`codeembed.training.views.VIEWS` of
            the code in ``code``, ``=NAME`` for another column as it is, or ``~NAME`` for its text
            with a word changed.
        code: Column of the code.
        deviants: Hard negatives to make of every code, into the column ``negatives``.
        separator: Between what a column joins; heads that read the tree beside its code need
            ``"\\x1e"``.
        copies: Rows to make of each, with fresh seeds: dynamic augmentation, written out.
        language: Of the code, where rows have no column ``language``.
    """

    kind: ClassVar[str] = "views"

    name: str
    source: str
    columns: Mapping[str, tuple[str, ...]]
    code: str = "positive"
    deviants: int = 0
    separator: str = "\n"
    copies: int = 1
    language: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.columns or self.copies < 1 or self.deviants < 0:
            raise ConfigError(f"stage {self.name}: give columns, copies >= 1 and deviants >= 0")
        for part in (part for parts in self.columns.values() for part in parts):
            if part[:1] not in ("=", "~") and part not in VIEWS:
                known = ", ".join(VIEWS)
                raise ConfigError(f"stage {self.name}: unknown view {part!r} (known: {known})")

    @property
    def data(self) -> DataConfig:
        """The source, as other stages name theirs."""
        return DataConfig((SourceConfig(self.source, licence="as the source's"),))

    def tiny(self, folder: Path) -> ViewStage:
        """The stage over a few rows."""
        return replace(self, limit=min(self.limit or TINY_ROWS, TINY_ROWS))


@dataclass(frozen=True)
class FilterStage:
    """CoRNStack's consistency filter: ``kind: consistent``.

    Attributes:
        model: Folder or hub name of the embedder that judges, or ``stage://NAME``.
        rank: Worst rank of the positive among the positives of all rows.
        least: Least cosine of the pair.
    """

    kind: ClassVar[str] = "consistent"

    name: str
    data: DataConfig
    model: str
    family: str = "bert"
    rank: int = 2
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not -1 <= self.least <= 1:
            raise ConfigError(f"stage {self.name}: rank >= 1, and least lies in [-1, 1]")

    def tiny(self, folder: Path) -> FilterStage:
        """The stage with a tiny random model, which knows no rank."""
        model = tiny_embedder(self.model, self.family, folder)
        return replace(self, data=few_rows(self.data), model=model, rank=TINY_ROWS, least=-1.0)


def _run_code(stage: CodeTrainStage, context: Context) -> Outcome | None:
    from codeembed.training.augment import AugmentedExamples
    from codeembed.training.graph import GraphExamples
    from codeembed.training.heads import head_of
    from mmembed.gpte.training import Extension, run_train

    def tasks(encoder: TextEncoder) -> Mapping[str, TokenTask]:
        return {one.label: head_of(one, encoder) for one in stage.heads}

    def augmented(encoder: TextEncoder, examples: ExampleSet) -> Examples:
        if stage.graph is not None:
            return GraphExamples(examples, encoder, stage.graph)
        if stage.augment is None:
            return examples
        return AugmentedExamples(examples, encoder.tokenizer, stage.augment)

    return run_train(stage, context, Extension(tasks=tasks, examples=augmented))


def _run_views(stage: ViewStage, context: Context) -> Outcome:
    source = context.source(SourceConfig(stage.source)).path
    problems: Counter[str] = Counter()
    rows = list(_viewed(stage, source, problems))
    if not rows:
        raise ConfigError(f"stage {stage.name}: no row of {source} has all views: {problems}")
    if problems:
        _log.warning("stage %s: left out %s", stage.name, dict(problems))
    return written(context, rows, {"rows": len(rows), "left_out": sum(problems.values())})


def _viewed(stage: ViewStage, source: str, problems: Counter[str]) -> Iterator[dict[str, Any]]:
    for number, raw in enumerate(raw_rows(source)):
        if number == stage.limit:
            return
        row = dict(raw.fields)
        try:
            code = Code.read(str(row[stage.code]).encode(), row.get("language") or stage.language)
        except KeyError:
            raise InputError(str(raw.place), f"has no column {stage.code!r}") from None
        except (InputError, ParseTimeoutError):
            problems["does-not-parse"] += 1
            continue
        for copy in range(stage.copies):
            made = _row(stage, row, code, number * stage.copies + copy)
            if isinstance(made, str):
                problems[made] += 1
            else:
                yield made


def _row(stage: ViewStage, row: Mapping[str, Any], code: Code, seed: int) -> dict[str, Any] | str:
    made = dict(row)
    for column, parts in stage.columns.items():
        texts = [_part(part, row, code, seed) for part in parts]
        if not all(text and text.strip() for text in texts):
            return f"no-{column}"
        made[column] = stage.separator.join(text for text in texts if text)
    if stage.deviants:
        clone = clone_of(code, seed, deviants=stage.deviants)
        if clone is None or not clone.deviants:
            return "no-deviant"
        made["negatives"] = list(clone.deviants)
    return made


def _part(part: str, row: Mapping[str, Any], code: Code, seed: int) -> str | None:
    if part in VIEWS:
        return VIEWS[part](code, seed)
    if part[1:] not in row:
        raise ConfigError(f"view {part!r}: the rows have no column {part[1:]!r}")
    text = str(row[part[1:]])
    return text if part.startswith("=") else noisy_text(text, seed)


def _run_filter(stage: FilterStage, context: Context) -> Outcome:
    from mmembed.gpte.text_encoder import TextEncoder

    encoder = TextEncoder.from_pretrained(context.model(stage.model)).eval()
    examples = read(stage.data, context)
    if any(one.positive is None for one in examples):
        raise ConfigError(f"stage {stage.name}: rows without a positive have no rank")
    queries = unit_vectors(encoder, [one.query for one in examples], "query")
    documents = unit_vectors(encoder, [str(one.positive) for one in examples], "document")
    kept = consistent(queries, documents, rank=stage.rank, least=stage.least)
    rows = [
        {"query": one.query, "positive": one.positive, "negatives": list(one.negatives)}
        for one, keep in zip(examples, kept, strict=True)
        if keep
    ]
    if not rows:
        raise ConfigError(f"stage {stage.name}: no row passes; raise rank, or lower least")
    return written(context, rows, {"rows": len(rows), "left_out": len(examples) - len(rows)})


CODE_STAGES: tuple[type[Any], ...] = (
    *(CodeTrainStage, JudgeStage),
    *(ViewStage, FilterStage, MatchedStage, ScoreStage),
)
CODE_RUNNERS: Mapping[type, Runner] = {
    CodeTrainStage: _run_code,
    ViewStage: _run_views,
    FilterStage: _run_filter,
    MatchedStage: run_matched,
    JudgeStage: run_judge,
    ScoreStage: run_score,
}

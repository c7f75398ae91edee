"""Batches of rows, as the trainer takes them: planned over tokenised sources, or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmembed.errors import InputError
from mmembed.gpte.batching import Plan
from mmembed.gpte.curriculum import Curriculum
from mmembed.gpte.data.guides import GuideVectors
from mmembed.gpte.data.tokenised import TokenisedSource
from mmembed.gpte.rows import Row

__all__ = [
    "Batches",
    "ExampleBatch",
    "ExampleSet",
    "Examples",
    "Member",
    "PlannedBatches",
    "assemble",
    "pick",
]


@dataclass(slots=True)
class ExampleBatch:
    """One process's rows of one batch, before the encoder.

    Attributes:
        query: ``n`` rows.
        positive: ``n`` rows, or None for single texts.
        negative: ``n * negatives_per_query`` rows, those of query 0 first.
        meta: per-row tensors of :class:`mmembed.gpte.protocols.Columns`.
        guide: ``(rows, g)`` float32 vectors of a frozen model, by column.
        source: number of the source that all rows come from; -1 where they differ.
        places: where the rows stand, for messages.
        keys: columns as a momentum encoder reads them, where it reads other rows.
    """

    query: list[Row]
    positive: list[Row] | None = None
    negative: list[Row] = field(default_factory=list)
    negatives_per_query: int = 0
    meta: Mapping[str, Tensor] = field(default_factory=dict)
    guide: Mapping[str, Tensor] = field(default_factory=dict)
    source: int = -1
    places: Sequence[str] = ()
    keys: Mapping[str, list[Row]] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, list[Row]]:
        """The columns that have rows, by name."""
        found = {"query": self.query, "positive": self.positive, "negative": self.negative}
        return {name: rows for name, rows in found.items() if rows}

    @property
    def tokens(self) -> int:
        """Tokens of all columns."""
        return sum(row.tokens for rows in self.columns.values() for row in rows)


@dataclass(frozen=True, slots=True)
class Member:
    """One row of a batch: the texts that were chosen of it, query first, then positive, negatives.

    Attributes:
        source: number of its source.
        teacher: scores of all texts but the query; empty without.
        guide: ``(texts, g)`` vectors of a frozen model.
        entities: numbers of the query's entity and of hard ones; empty without.
    """

    source: int
    place: str
    rows: list[Row]
    hashes: list[int]
    has_positive: bool
    label: float | None = None
    teacher: Sequence[float] = ()
    guide: npt.NDArray[np.float32] | None = None
    entities: Sequence[int] = ()


def assemble(members: Sequence[Member]) -> ExampleBatch:
    """Rows to a batch.

    Raises:
        InputError: some have a positive, negatives or entities, and some have none, or fewer.
    """
    head = members[0]
    for member in members:
        if len(member.entities) != len(head.entities):
            raise InputError(
                f"{head.place} and {member.place}",
                f"{len(head.entities)} entities and {len(member.entities)}: they cannot share a "
                "batch",
                "list as many hard entities in every row",
            )
        if (member.has_positive, len(member.rows)) != (head.has_positive, len(head.rows)):
            raise InputError(
                f"{head.place} and {member.place}",
                "one has a positive or negatives that the other lacks: they cannot share a batch",
                "set batch.order: homogeneous",
            )
    first = 1 + head.has_positive
    parts = {
        "query": slice(0, 1),
        "positive": slice(1, first),
        "negative": slice(first, len(head.rows)),
    }
    rows = {name: [row for m in members for row in m.rows[at]] for name, at in parts.items()}
    meta = {
        f"{name}_hash": torch.tensor([h for m in members for h in m.hashes[at]])
        for name, at in parts.items()
        if rows[name]
    }
    if all(member.label is not None for member in members):
        meta["label"] = torch.tensor([member.label for member in members])
    if all(member.teacher for member in members):
        meta["teacher"] = torch.tensor([list(member.teacher) for member in members])
    if head.entities:
        meta["entities"] = torch.tensor([list(member.entities) for member in members])
    guide = {
        name: torch.from_numpy(
            np.concatenate([m.guide[at] for m in members if m.guide is not None])
        )
        for name, at in parts.items()
        if rows[name] and head.guide is not None
    }
    return ExampleBatch(
        rows["query"],
        rows["positive"] if head.has_positive else None,
        rows["negative"],
        len(head.rows) - first,
        meta,
        guide,
        head.source if len({member.source for member in members}) == 1 else -1,
        [member.place for member in members],
    )


def pick(count: int, k: int, seed: Sequence[int]) -> list[int]:
    """``k`` of ``count`` things, each once if there are enough, in their own order."""
    if count <= k:
        return [i % count for i in range(k)]
    return sorted(np.random.default_rng(list(seed)).choice(count, k, replace=False).tolist())


class Batches(Protocol):
    """A run's batches for one process."""

    def steps(self, epochs: float) -> int:
        """How many batches make so many epochs.

        Raises:
            ConfigError: the end of the data is not known.
        """
        ...

    def epoch_of(self, step: int) -> float:
        """How many epochs lie behind a step; NaN where that is not known."""
        ...

    def start_at(self, step: int) -> Iterator[ExampleBatch]:
        """The batches from a step of the run on, without end."""
        ...


class Examples(Protocol):
    """Rows by number; picklable, as worker processes hold it."""

    def __len__(self) -> int: ...

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """These rows as a batch; ``draw``, the run's seed, the epoch and the step, seeds whatever
        is drawn within a row."""
        ...


class ExampleSet:
    """Rows of several tokenised sources under one numbering. Implements :class:`Examples`.

    Args:
        sources: in the order of the plan's.
        negatives: hard negatives per query, for rows of sources that have any: drawn without
            replacement, or repeated where a row has fewer.
        guides: a frozen model's vectors of each source's texts; empty for none.
        curriculum: draws the negatives by their scores instead.
    """

    def __init__(
        self,
        sources: Sequence[TokenisedSource],
        negatives: int = 0,
        guides: Sequence[GuideVectors] = (),
        curriculum: Curriculum | None = None,
    ) -> None:
        self.sources = list(sources)
        self.negatives = negatives
        self.curriculum = curriculum
        self.guides = list(guides)
        self.starts = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """``(rows,)`` tokens of each row."""
        return np.concatenate([source.lengths for source in self.sources])

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """As :meth:`Examples.batch`.

        Raises:
            InputError: rows with and without positives or negatives met.
        """
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        return assemble(
            [
                self._member(int(owner), int(row) - int(self.starts[owner]), draw)
                for owner, row in zip(owners, rows, strict=True)
            ]
        )

    def _member(self, owner: int, row: int, draw: tuple[int, int, int]) -> Member:
        source = self.sources[owner]
        start, stop = (int(at) for at in source.text_ends[row : row + 2])
        first = start + 1 + source.has_positive
        k = self.negatives if source.has_negatives else 0
        *seed, step = draw
        seed.append(int(self.starts[owner]) + row)
        if self.curriculum is None or not k:
            chosen = pick(stop - first, k, seed)
        else:
            drawn = self.curriculum.draw(source.teacher[first:stop], k, step, seed)
            chosen = sorted(drawn[i % len(drawn)] for i in range(k))
        texts = [*range(start, first), *(first + i for i in chosen)]
        return Member(
            owner,
            str(source.place(row)),
            [source.row(text) for text in texts],
            source.hashes[texts].tolist(),
            source.has_positive,
            float(source.labels[row]) if source.has_label else None,
            source.teacher[texts[1:]].tolist() if source.has_teacher else [],
            self.guides[owner].values[texts] if self.guides else None,
            source.entities[source.entity_ends[row] : source.entity_ends[row + 1]].tolist(),
        )


class PlannedBatches:
    """Batches of a plan, fetched ahead by worker processes. Implements :class:`Batches`.

    Args:
        rank: this process.
        workers: processes that fetch; 0 fetches here. The batches are the same.
    """

    def __init__(self, examples: Examples, plan: Plan, rank: int = 0, workers: int = 0) -> None:
        self.examples, self.plan, self.rank, self.workers = examples, plan, rank, workers

    def steps(self, epochs: float) -> int:
        """As :meth:`Batches.steps`."""
        return self.plan.steps(epochs)

    def epoch_of(self, step: int) -> float:
        """As :meth:`Batches.epoch_of`."""
        epoch, at = self.plan.locate(step)
        return epoch + at / len(self.plan.epoch(epoch))

    def start_at(self, step: int) -> Iterator[ExampleBatch]:
        """As :meth:`Batches.start_at`.

        Raises:
            InputError: a worker process died.
        """
        loader = DataLoader(
            _Steps(self.examples, self.plan, self.rank),
            batch_size=None,
            sampler=_From(step),
            num_workers=self.workers,
            # Its own generator: a loader that drew from the global one would change the dropout
            # of a resumed run.
            generator=torch.Generator(),
            multiprocessing_context="spawn" if self.workers else None,
        )
        batches: Any = iter(loader)
        while True:
            try:
                batch = next(batches)
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                hint = "out of memory? use fewer data.workers"
                raise InputError("training data", "a loading process died", hint) from error
            yield batch


class _Steps(Dataset[ExampleBatch]):
    def __init__(self, examples: Examples, plan: Plan, rank: int) -> None:
        self.examples, self.plan, self.rank = examples, plan, rank

    def __getitem__(self, step: int) -> ExampleBatch:
        epoch, rows = self.plan.share(step, self.rank)
        return self.examples.batch(rows.tolist(), (self.plan.seed, epoch, step))


class _From:
    """The steps from one on, without end."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        step = self.start
        while True:
            yield step
            step += 1

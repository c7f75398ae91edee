"""Batches of sources too large to hold or to tokenise beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import BatchConfig, DataConfig, SourceConfig
from mmembed.gpte.data.batches import ExampleBatch, Member, assemble, pick
from mmembed.gpte.data.examples import Example, Report, examples_of, text_hash
from mmembed.gpte.data.tokenised import TextRows
from mmembed.gpte.rows import Row

__all__ = ["Chosen", "Stream", "StreamedBatches", "streamed_texts"]

_E = TypeVar("_E")

Chosen = Sequence[tuple[int, _E]]
"""Rows of a batch, each with the number of its source."""


@dataclass(frozen=True)
class Stream(Generic[_E]):
    """A source that is read from its start to its end, again and again.

    Attributes:
        name: of the source, in messages.
        read: its examples in their order; fills the report.
        weight: its share of the draws where the mixture is weighted.
    """

    name: str
    read: Callable[[Report], Iterator[_E]]
    weight: float = 1.0


class StreamedBatches(Generic[_E]):
    """Rows in the order of their sources, shuffled within a buffer, made into rows of the model
    batch by batch.

    Implements :class:`mmembed.gpte.data.batches.Batches`. The order depends on the seed alone, and
    a resumed run reads its way back to the step where it was without making anything of the rows.
    Each source starts again when it ends.

    Args:
        make: a batch of the chosen rows; the step seeds whatever is drawn within a row.
        buffer: rows of a source that are shuffled together.
        rank, world: of a batch of ``batch.size`` rows that every process draws alike, this one
            keeps every ``world``-th row.

    Raises:
        ConfigError: an order or mixture that needs to know all rows.
    """

    def __init__(
        self,
        streams: Sequence[Stream[_E]],
        batch: BatchConfig,
        make: Callable[[Chosen[_E], int], ExampleBatch],
        *,
        buffer: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch.order == "contextual" or batch.tokens is not None or batch.mixture == "sizes":
            raise ConfigError(
                "data.streaming cannot plan contextual order, token budgets or mixtures by size"
            )
        if batch.size < world:
            raise ConfigError(f"batch: size {batch.size} does not give {world} processes a row")
        self.streams, self.config, self.make = list(streams), batch, make
        self.buffer, self.seed, self.rank, self.world = buffer, seed, rank, world

    def steps(self, epochs: float) -> int:
        """Not known: a stream has no length."""
        raise ConfigError("a streamed stage needs schedule.steps: how long its data is, is unknown")

    def epoch_of(self, step: int) -> float:
        """NaN."""
        return math.nan

    def start_at(self, step: int) -> Iterator[ExampleBatch]:
        """The batches from a step on.

        Raises:
            InputError: a broken row where ``bad_rows`` is ``raise``, or a source without rows.
        """
        size = self.config.size
        # Rows of one source that stand together.
        block = {"homogeneous": size, "interleaved": self.config.block}.get(self.config.order, 1)
        random = np.random.default_rng([self.seed, 0])
        weights = np.asarray([stream.weight for stream in self.streams])
        shares = weights / weights.sum()
        if self.config.mixture != "weights":
            shares = np.full(len(weights), 1 / len(weights))
        rows = [self._shuffled(stream, number) for number, stream in enumerate(self.streams)]
        at = 0
        while True:
            owners = random.choice(len(rows), -(-size // block), p=shares).repeat(block).tolist()
            chosen = [(owner, next(rows[owner])) for owner in owners[:size]]
            if at >= step:
                yield self.make(chosen[self.rank :: self.world], at)
            at += 1

    def _shuffled(self, stream: Stream[_E], number: int) -> Iterator[_E]:
        """A source's examples, round after round, shuffled within the buffer."""
        random = np.random.default_rng([self.seed, 1, number])
        buffer: list[_E] = []
        while True:
            report = Report(stream.name)
            for example in stream.read(report):
                if len(buffer) < self.buffer:
                    buffer.append(example)
                    continue
                i = int(random.integers(len(buffer)))
                buffer[i], example = example, buffer[i]
                yield example
            report.log()
            if not report.kept:
                raise InputError(stream.name, "has no usable row", "is it the right file?")
            # The buffer is emptied at the end of a round, so each round has every row once.
            for i in random.permutation(len(buffer)):
                yield buffer[i]
            buffer.clear()


def streamed_texts(
    data: DataConfig,
    batch: BatchConfig,
    rows: TextRows,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> StreamedBatches[Example]:
    """Streams of texts: every process reads all rows and keeps its own.

    Raises:
        ConfigError: as :class:`StreamedBatches`.
    """

    def stream(source: SourceConfig) -> Stream[Example]:
        return Stream(
            source.name or source.path,
            lambda report: examples_of(source, report, data.bad_rows),
            source.weight,
        )

    return StreamedBatches(
        [stream(source) for source in data.sources],
        batch,
        _TextBatch(data, rows, seed),
        buffer=data.buffer,
        seed=seed,
        rank=rank,
        world=world,
    )


@dataclass(frozen=True)
class _TextBatch:
    """Tokenises the chosen texts."""

    data: DataConfig
    rows: TextRows
    seed: int

    def __call__(self, chosen: Chosen[Example], step: int) -> ExampleBatch:
        rows: dict[int, Iterator[list[Row]]] = {}
        for owner in sorted({owner for owner, _ in chosen}):
            mine = [example for o, example in chosen if o == owner]
            try:
                rows[owner] = iter(self.rows(self.data.sources[owner], mine))
            except InputError as error:
                place = mine[error.position or 0].place
                raise InputError(str(place), error.reason, error.hint) from None
        members = []
        for i, (owner, example) in enumerate(chosen):
            made = next(rows[owner])
            first = 1 + (example.positive is not None)
            k = self.data.negatives if example.negatives else 0
            picked = pick(len(example.negatives), k, (self.seed, 2, step, i))
            texts = [*range(first), *(first + i for i in picked)]
            members.append(
                Member(
                    owner,
                    str(example.place),
                    [made[text] for text in texts],
                    [text_hash(example.texts[text]) for text in texts],
                    example.positive is not None,
                    example.label,
                    [example.teacher[text - 1] for text in texts[1:]] if example.teacher else [],
                    entities=example.entities,
                )
            )
        return assemble(members)

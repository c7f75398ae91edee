"""Batches of sources too large to tokenise beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mmembed.errors import ConfigError, InputError
from mmembed.gpte.config import BatchConfig, DataConfig, SourceConfig
from mmembed.gpte.data.batches import ExampleBatch, Member, assemble, pick
from mmembed.gpte.data.examples import Example, Report, examples_of, text_hash
from mmembed.gpte.data.tokenised import TextRows
from mmembed.gpte.rows import Row

__all__ = ["StreamedBatches"]


class StreamedBatches:
    """Rows in the order of their sources, shuffled within a buffer, tokenised batch by batch.

    Implements :class:`mmembed.gpte.data.batches.Batches`. The order depends on the seed alone, and
    a resumed run reads its way back to the step where it was without tokenising anything. Each
    source starts again when it ends; every process reads all of them and keeps its own rows.

    Raises:
        ConfigError: an order or mixture that needs to know all rows.
    """

    def __init__(
        self,
        data: DataConfig,
        batch: BatchConfig,
        rows: TextRows,
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
        self.data, self.config, self.rows = data, batch, rows
        self.seed, self.rank, self.world = seed, rank, world

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
        random = np.random.default_rng([self.seed, 0])
        weights = np.asarray([s.weight for s in self.data.sources])
        shares = weights / weights.sum()
        if self.config.mixture != "weights":
            shares = np.full(len(weights), 1 / len(weights))
        streams = [
            self._shuffled(source, number) for number, source in enumerate(self.data.sources)
        ]
        at = 0
        while True:
            if self.config.order == "homogeneous":
                owners = [int(random.choice(len(streams), p=shares))] * size
            else:
                owners = random.choice(len(streams), size, p=shares).tolist()
            chosen = [(owner, next(streams[owner])) for owner in owners]
            if at >= step:
                yield self._batch(chosen[self.rank :: self.world], at)
            at += 1

    def _shuffled(self, source: SourceConfig, number: int) -> Iterator[Example]:
        """A source's examples, round after round, shuffled within the buffer."""
        random = np.random.default_rng([self.seed, 1, number])
        buffer: list[Example] = []
        while True:
            report = Report(source.name or source.path)
            for example in examples_of(source, report, self.data.bad_rows):
                if len(buffer) < self.data.buffer:
                    buffer.append(example)
                    continue
                i = int(random.integers(len(buffer)))
                buffer[i], example = example, buffer[i]
                yield example
            report.log()
            if not report.kept:
                raise InputError(source.path, "has no usable row", "is it the right file?")
            # The buffer is emptied at the end of a round, so each round has every row once.
            for i in random.permutation(len(buffer)):
                yield buffer[i]
            buffer.clear()

    def _batch(self, chosen: Sequence[tuple[int, Example]], step: int) -> ExampleBatch:
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

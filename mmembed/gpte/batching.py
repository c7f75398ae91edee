"""Which rows meet in which batch: a pure function of (seed, epoch, step, world size).

Nothing here holds state, so a resumed run continues with the very batches it would have seen,
whatever the number of workers that fetch them. Batches are planned over all processes, and each
process takes its share; every process has the same number of steps and at least one row in each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mmembed.errors import ConfigError
from mmembed.gpte.config import BatchConfig

__all__ = ["Epoch", "Plan"]

Rows = npt.NDArray[np.int64]

_WINDOW = 64  # batches whose rows are sorted by length together, under a token budget


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch.

    Attributes:
        rows: every batch's rows, one after another.
        ends: ``(steps + 1,)`` where batches start and end in ``rows``.
    """

    rows: Rows
    ends: Rows

    def __len__(self) -> int:
        return len(self.ends) - 1

    def batch(self, step: int) -> Rows:
        """The rows of all processes at ``step`` of this epoch."""
        return self.rows[self.ends[step] : self.ends[step + 1]]


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of a run.

    Rows are numbered through all sources: those of source 0 first. With the mixture ``all``, every
    row comes once an epoch, in batches of equal size give or take one row. Other mixtures draw each
    source's rows evenly, in a new order every round.

    Attributes:
        sizes: rows of each source.
        config: sizes and order of batches.
        seed: of all orders.
        world: processes.
        weights: one a source, for the mixture ``weights``.
        lengths: ``(rows,)`` tokens of each row, for a token budget.
        clusters: ``(rows,)`` int64 cluster of each row, for contextual batches.
        names: the sources', for messages.

    Raises:
        ConfigError: a source is shorter than a batch, or what the order needs is missing.
    """

    sizes: tuple[int, ...]
    config: BatchConfig
    seed: int = 0
    world: int = 1
    weights: tuple[float, ...] = ()
    lengths: npt.NDArray[np.int64] | None = None
    clusters: npt.NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    _held: dict[int, Epoch] = field(default_factory=dict, init=False, repr=False)
    _starts: list[int] = field(default_factory=lambda: [0], init=False, repr=False)

    def __post_init__(self) -> None:
        config = self.config
        if config.size < self.world:
            raise ConfigError(
                f"batch: size {config.size} does not give each of {self.world} processes a row"
            )
        if config.tokens is not None and self.lengths is None:
            raise ConfigError("batch: a token budget needs the lengths of rows")
        if config.order == "contextual" and self.clusters is None:
            raise ConfigError("batch: contextual order needs clusters, hence data.guide")
        if config.mixture == "weights" and len(self.weights) != len(self.sizes):
            raise ConfigError(f"{len(self.sizes)} sources have {len(self.weights)} weights")
        least = 2 * self.world if config.tokens is not None else config.size
        apart = self.sizes if config.order == "homogeneous" else (sum(self.sizes),)
        for i, size in enumerate(apart):
            if size < least:
                name = self.names[i] if len(apart) > 1 and self.names else "the data"
                raise ConfigError(
                    f"{name} has {size} rows, fewer than one batch of {least}: lower batch.size"
                )

    @property
    def starts(self) -> Rows:
        """``(sources + 1,)``: the number of each source's first row, and of all rows."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    def epoch(self, epoch: int) -> Epoch:
        """The batches of an epoch."""
        if epoch not in self._held:
            for old in [e for e in self._held if e != epoch - 1]:
                del self._held[old]  # two epochs are enough for a run and its prefetching
            self._held[epoch] = self._planned(epoch)
        return self._held[epoch]

    def locate(self, step: int) -> tuple[int, int]:
        """``(epoch, step of that epoch)`` of a step of the whole run."""
        while self._starts[-1] <= step:
            # Under a token budget, epochs may differ by a step or so.
            self._starts.append(self._starts[-1] + len(self.epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, step, side="right")) - 1
        return epoch, step - self._starts[epoch]

    def steps(self, epochs: float) -> int:
        """The number of batches in so many epochs."""
        whole = int(epochs)
        total = sum(len(self.epoch(e)) for e in range(whole)) if self.config.tokens else 0
        if not self.config.tokens and whole:
            total = whole * len(self.epoch(0))
        if epochs > whole:
            total += math.ceil((epochs - whole) * len(self.epoch(whole)))
        return total

    def batch(self, step: int) -> tuple[int, Rows]:
        """The epoch, and the rows of all processes, at a step of the run."""
        epoch, at = self.locate(step)
        return epoch, self.epoch(epoch).batch(at)

    def share(self, step: int, rank: int) -> tuple[int, Rows]:
        """The epoch, and the rows of one process, at a step of the run."""
        epoch, rows = self.batch(step)
        return epoch, rows[rank :: self.world]

    def source_of(self, row: int) -> int:
        """The source that a row belongs to."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _planned(self, epoch: int) -> Epoch:
        random = self._random(epoch)
        config = self.config
        groups = self._drawn(epoch)
        if config.order == "interleaved":
            # Blocks keep to one source, and so do the hard negatives among their rows.
            blocks = [block for rows in groups for block in _blocks(rows, config.block, random)]
            order = random.permutation(len(blocks))
            groups = [np.concatenate([blocks[i] for i in order])]
        elif config.order != "homogeneous":
            groups = [np.concatenate(groups)]
        batches: list[Rows] = []
        for rows in groups:
            if config.order == "interleaved":
                batches += _even(rows, config.size, self.world)
            elif config.order == "contextual":
                batches += _even(self._by_cluster(rows, random), config.size, self.world)
            elif config.tokens is not None:
                assert self.lengths is not None
                rows = random.permutation(rows)
                batches += _budget(rows, self.lengths, config.tokens, config.size, self.world)
            else:
                batches += _even(random.permutation(rows), config.size, self.world)
        order = random.permutation(len(batches))
        ends = np.cumsum([0, *(len(batches[i]) for i in order)])
        return Epoch(np.concatenate([batches[i] for i in order]), ends.astype(np.int64))

    def _drawn(self, epoch: int) -> list[Rows]:
        """The rows of each source that this epoch uses."""
        starts = self.starts
        if self.config.mixture == "all":
            return [np.arange(a, b) for a, b in pairwise(starts)]
        return [
            starts[s] + self._stream(s, epoch * count, count)
            for s, count in enumerate(self._counts())
        ]

    def _counts(self) -> list[int]:
        """Draws a epoch from each source: as many as there are rows, shared out."""
        sizes = np.asarray(self.sizes, dtype=np.float64)
        if self.config.mixture == "weights":
            shares = np.asarray(self.weights, dtype=np.float64)
        else:
            shares = sizes**self.config.alpha
        shares = shares / shares.sum()
        # Homogeneous sources are shared out in batches, or a rare one would shrink its batch.
        unit = self.config.size if self.config.order == "homogeneous" else 1
        exact = shares * (sum(self.sizes) // unit)
        counts = np.floor(exact).astype(np.int64)
        for s in np.argsort(counts - exact)[: sum(self.sizes) // unit - counts.sum()]:
            counts[s] += 1
        return [max(1, int(count)) * unit for count in counts]

    def _stream(self, source: int, start: int, count: int) -> Rows:
        """Draws ``start`` to ``start + count`` of the endless stream of one source's rows."""
        size = self.sizes[source]
        rounds = range(start // size, (start + count - 1) // size + 1)
        orders = [self._random(r, source + 1).permutation(size) for r in rounds]
        at = start - rounds.start * size
        return np.concatenate(orders)[at : at + count]

    def _by_cluster(self, rows: Rows, random: np.random.Generator) -> Rows:
        """The rows with those of a cluster together, clusters and their rows in random order."""
        assert self.clusters is not None
        rows = random.permutation(rows)
        clusters = self.clusters[rows]
        rank = random.permutation(int(self.clusters.max()) + 1)
        return rows[np.argsort(rank[clusters], kind="stable")]

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])


def _blocks(rows: Rows, size: int, random: np.random.Generator) -> list[Rows]:
    """The rows in random order, in blocks of at most so many."""
    return list(np.array_split(random.permutation(rows), math.ceil(len(rows) / size)))


def _even(rows: Rows, size: int, world: int) -> list[Rows]:
    """Consecutive batches of at most ``size`` rows, whose sizes differ by one at most.

    Where that would leave a process without a row, there are fewer and larger ones.
    """
    return list(np.array_split(rows, min(math.ceil(len(rows) / size), len(rows) // world)))


def _budget(rows: Rows, lengths: Rows, tokens: int, size: int, least: int) -> list[Rows]:
    """Batches of at most ``tokens`` tokens and ``size`` rows, of rows of like length.

    A batch has ``least`` rows even where those exceed the budget.
    """
    batches: list[Rows] = []
    window = max(size * _WINDOW, least)
    for part in np.array_split(rows, math.ceil(len(rows) / window)):
        by_length = part[np.argsort(lengths[part], kind="stable")]
        held, start = 0, 0
        cuts: list[int] = []
        for i, length in enumerate(lengths[by_length].tolist()):
            if i - start >= least and (held + length > tokens or i - start >= size):
                cuts.append(i)
                held, start = 0, i
            held += length
        if cuts and len(by_length) - cuts[-1] < least:
            cuts.pop()  # the last few join the batch before them
        batches += np.split(by_length, cuts)
    return batches

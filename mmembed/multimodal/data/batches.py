"""Batches of items of any modality, decoded ahead of the step that trains on them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mmembed.backbones.base import Backbone
from mmembed.errors import InputError
from mmembed.gpte.data.batches import Batches, ExampleBatch, Member, assemble, pick
from mmembed.gpte.rows import Row
from mmembed.inputs.decode import decode_stream
from mmembed.inputs.decoded import DecodedItem
from mmembed.inputs.items import Item
from mmembed.multimodal.data.rows import MediaExample, item_hash, modality_bits

__all__ = ["Ahead", "MediaExamples"]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_log = logging.getLogger(__name__)
_AHEAD = 32


class MediaExamples:
    """Examples of several sources under one numbering; implements
    :class:`mmembed.gpte.data.batches.Examples`.

    Media are decoded when a batch is asked for, in threads. A row whose media cannot be read stops
    the run, or is left out of its batch and counted.

    Args:
        sources: examples of each source.
        backbone: makes rows of items.
        negatives: hard negatives per query, for rows that have any.
        guide: a frozen model's ``(g,)`` float32 vector of every item, by its hash; empty for none.
        skip: leave bad rows out.
        task: task adapter that reads all rows; ``""`` for the model alone.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[MediaExample]],
        backbone: Backbone,
        negatives: int = 0,
        *,
        guide: Mapping[int, Vector] | None = None,
        skip: bool = False,
        task: str = "",
    ) -> None:
        self.sources = [list(source) for source in sources]
        self.backbone = backbone
        self.negatives = negatives
        self.guide = guide or {}
        self.skip = skip
        self.task = task
        self.skipped = 0
        self.starts = np.cumsum([0, *(len(source) for source in self.sources)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """These rows as a batch; ``draw`` seeds the choice of hard negatives.

        Raises:
            InputError: a medium cannot be read, or, where such rows are skipped, not one row of
                the batch can.
        """
        owners = [int(o) for o in np.searchsorted(self.starts, rows, side="right") - 1]
        chosen = [
            (owner, self.sources[owner][int(row) - int(self.starts[owner])])
            for owner, row in zip(owners, rows, strict=True)
        ]
        return self.batch_of(chosen, [(*draw[:2], int(row)) for row in rows])

    def batch_of(
        self, chosen: Sequence[tuple[int, MediaExample]], draws: Sequence[tuple[int, ...]]
    ) -> ExampleBatch:
        """A batch of examples, each with the number of its source, and a seed for its negatives.

        Raises:
            InputError: as :meth:`batch`.
        """
        groups = [
            self._items(example, draw) for (_, example), draw in zip(chosen, draws, strict=True)
        ]
        members, bits = [], []
        for (owner, example), group, made in zip(chosen, groups, self.rows_of(groups), strict=True):
            broken = next((one for one in made if isinstance(one, InputError)), None)
            if broken is not None:
                self._broken(example, broken)
                continue
            members.append(self.member(owner, example, group, made))
            bits.append([modality_bits(item) for item in group])
        if not members:
            raise InputError(
                str(chosen[0][1].place), "no row of this batch can be read", "see the log above"
            )
        batch = assemble(members)
        return replace(batch, meta={**batch.meta, **_modalities(bits)})

    def _items(self, example: MediaExample, seed: tuple[int, ...]) -> list[Item]:
        count = len(example.negatives)
        k = self.negatives if count else 0
        kept = [example.negatives[i] for i in pick(count, k, seed)]
        return [example.query, example.positive, *kept]

    def rows_of(self, groups: Sequence[Sequence[Item]]) -> list[list[Row | InputError]]:
        """A row an item of each group, query first, or what is wrong with it."""
        items = [(item, at > 0) for group in groups for at, item in enumerate(group)]
        found = iter(self._rows(items))
        return [[next(found) for _ in group] for group in groups]

    def decoded(self, items: Sequence[tuple[Item, bool]]) -> list[DecodedItem | InputError]:
        """Each item decoded, or what is wrong with it; True marks documents."""
        out: list[DecodedItem | InputError] = []
        stream = decode_stream(
            (item for item, _ in items), self.backbone.media_budget, window=_AHEAD
        )
        for position, found in stream:
            if not isinstance(found, InputError):
                role = "document" if items[position][1] else "query"
                found = replace(found, role=role, task=self.task)
            out.append(found)
        return out

    def _rows(self, items: Sequence[tuple[Item, bool]]) -> list[Row | InputError]:
        decoded = self.decoded(items)
        out: list[Row | InputError | None] = [
            one if isinstance(one, InputError) else None for one in decoded
        ]
        good = [(i, one) for i, one in enumerate(decoded) if isinstance(one, DecodedItem)]
        while good:
            try:
                rows = self.backbone.prepare([item for _, item in good])
            except InputError as error:
                position, _ = good.pop(error.position or 0)
                out[position] = error
                continue
            for (position, _), row in zip(good, rows, strict=True):
                row.task = self.task
                out[position] = row
            break
        return [one for one in out if one is not None]

    def member(
        self, owner: int, example: MediaExample, items: Sequence[Item], rows: list[Any]
    ) -> Member:
        """A row of the batch, from the items that were chosen of an example and their rows."""
        hashes = [item_hash(item) for item in items]
        return Member(
            owner,
            str(example.place),
            rows,
            hashes,
            True,
            example.label,
            self.teacher_of(example, items),
            np.stack([self.guide[one] for one in hashes]) if self.guide else None,
        )

    @staticmethod
    def teacher_of(example: MediaExample, items: Sequence[Item]) -> list[float]:
        """The teacher's scores of the chosen documents; empty without a teacher."""
        scores = dict(zip(map(id, example.items[1:]), example.teacher, strict=False))
        return [scores[id(item)] for item in items[1:]] if example.teacher else []

    def _broken(self, example: MediaExample, error: InputError) -> None:
        if not self.skip:
            hint = "mend the row, or set data.bad_rows: skip"
            raise InputError(str(example.place), str(error), hint)
        self.skipped += 1
        _log.warning("%s: left out (%d so far): %s", example.place, self.skipped, error)


class Ahead:
    """Batches made in a thread while the one before is trained on; the same batches in order.

    Args:
        batches: what to run ahead of.
        count: batches in memory at most, beside the one in use; 0 makes them when asked.
    """

    def __init__(self, batches: Batches, count: int) -> None:
        self._batches = batches
        self._count = count

    def steps(self, epochs: float) -> int:
        """As :meth:`mmembed.gpte.data.batches.Batches.steps`."""
        return self._batches.steps(epochs)

    def epoch_of(self, step: int) -> float:
        """As :meth:`mmembed.gpte.data.batches.Batches.epoch_of`."""
        return self._batches.epoch_of(step)

    def start_at(self, step: int) -> Iterator[ExampleBatch]:
        """As :meth:`mmembed.gpte.data.batches.Batches.start_at`; closing it ends the thread."""
        if not self._count:
            yield from self._batches.start_at(step)
            return
        made: queue.Queue[Any] = queue.Queue(self._count)
        stop = threading.Event()

        def work() -> None:
            try:
                for batch in self._batches.start_at(step):
                    if not _put(made, batch, stop):
                        return
            except BaseException as error:
                _put(made, error, stop)

        thread = threading.Thread(target=work, name="mmembed-batches", daemon=True)
        thread.start()
        try:
            while True:
                found = made.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stop.set()
            thread.join()


def _put(made: queue.Queue[Any], value: Any, stop: threading.Event) -> bool:
    """Hand a value over, unless nobody waits for it any more."""
    while not stop.is_set():
        try:
            made.put(value, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _modalities(bits: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """What modality masks read: bits of positives, and of negatives where there are any."""
    found = {"modality": torch.tensor([group[1] for group in bits])}
    negatives = [bit for group in bits for bit in group[2:]]
    if negatives:
        found["negative_modality"] = torch.tensor(negatives)
    return found

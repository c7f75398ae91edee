"""The stages between inputs and vectors: what overlaps, and what keeps its place."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mmembed.encoding import encode_stream
from mmembed.errors import InputError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem


class Numbers:
    """A backbone whose rows are the brightness of their pictures; black ones cannot be read."""

    media_budget = MediaBudget()

    def __init__(self, meeting: threading.Barrier | None = None) -> None:
        self.meeting = meeting

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        if self.meeting is not None:
            self.meeting.wait(240)
        rows = []
        for position, item in enumerate(items):
            value = int(np.asarray(item.parts[0])[0, 0, 0])
            if value == 0:
                raise InputError(item.label, "is black").at(position)
            rows.append(Row([value], 1 + value % 3))
        return rows

    def collate(self, rows: Sequence[Row]) -> torch.Tensor:
        return torch.tensor([row.input_ids for row in rows])


def picture(value: int) -> Any:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def read(batch: torch.Tensor) -> Outputs:
    return Outputs(dense=batch.float())


def test_groups_are_prepared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    backbone: Any = Numbers(threading.Barrier(2))  # nobody leaves before two are there
    values = range(1, 17)
    found = encode_stream(map(picture, values), backbone, read)
    assert [int(one.vector[0]) for one in found if one.vector is not None] == list(values)


def test_bad_items_of_any_group_keep_their_places() -> None:
    backbone: Any = Numbers()
    values = [i % 7 for i in range(60)]
    found = list(encode_stream(map(picture, values), backbone, read, batch_tokens=5))
    assert [one.position for one in found] == list(range(60))
    for value, one in zip(values, found, strict=True):
        if value:
            assert one.vector is not None
            assert one.vector.tolist() == [value]
        else:
            assert one.error is not None
            assert one.error.position == one.position

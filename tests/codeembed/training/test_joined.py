"""Pairs as rows: which texts and codes are read together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from codeembed.training.joined import PairedExamples
from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.rows import Row


class _Given:
    def __init__(self, batch: ExampleBatch) -> None:
        self.given = batch

    def __len__(self) -> int:
        return 2

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        return self.given


def test_a_query_is_paired_with_its_positive_and_its_own_negatives() -> None:
    def rows(*ids: int) -> list[Row]:
        return [Row([i], 1) for i in ids]

    def both(text: Row, code: Row) -> Row:
        return Row([*text.input_ids, *code.input_ids], text.tokens + code.tokens)

    given = ExampleBatch(rows(1, 2), rows(11, 12), rows(21, 22, 23, 24), 2)
    made = PairedExamples(_Given(given), both).batch([0, 1], (0, 0, 0))
    assert [row.input_ids for row in made.query] == [[1, 11], [2, 12]]
    assert [row.input_ids for row in made.negative] == [[1, 21], [1, 22], [2, 23], [2, 24]]
    assert made.positive is None
    assert made.query[0].tokens == 2
    with pytest.raises(ConfigError, match="single texts"):
        PairedExamples(_Given(ExampleBatch(rows(1))), both).batch([0], (0, 0, 0))

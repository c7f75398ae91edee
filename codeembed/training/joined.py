"""A text and its code as one row, which a model reads together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch, Examples
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["Joiner", "PairedExamples"]


class Joiner:
    """Joins ``[CLS] text [SEP]`` and ``[CLS] code [SEP]`` to ``[CLS] text [SEP] code [SEP]``.

    The code is cut at its end where the row is longer than the encoder reads; the span ``"code"``
    says where it stands.

    Raises:
        ConfigError: the tokenizer puts no such tokens around texts.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        tokenizer: Any = encoder.tokenizer
        self._first, self._most = tokenizer.cls_token_id, encoder.max_tokens
        if self._first is None or tokenizer.sep_token_id is None:
            raise ConfigError("to read text and code together, a tokenizer needs [CLS] and [SEP]")

    def __call__(self, text: Row, code: Row) -> Row:
        """The row.

        Raises:
            ConfigError: the code does not begin with [CLS].
        """
        if code.input_ids[0] != self._first:
            raise ConfigError("to read text and code together, leave prompts of code out")
        *rest, end = code.input_ids[1:]
        # A text may fill all the room; then nothing is left to say of its code.
        rest = rest[: max(0, self._most - len(text.input_ids) - 1)]
        ids = [*text.input_ids, *rest, end]
        return Row(ids, len(ids), spans={"code": [(len(text.input_ids), len(ids) - 1)]})


class PairedExamples:
    """Rows that hold a text and a code each: a query with its positive, and with its negatives.

    Implements :class:`mmembed.gpte.data.batches.Examples`.

    Args:
        examples: the rows apart.
        pair: makes one of two, of the text and of the code.
    """

    def __init__(self, examples: Examples, pair: Callable[[Row, Row], Row]) -> None:
        self.examples, self._pair = examples, pair

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """As :meth:`mmembed.gpte.data.batches.Examples.batch`.

        Raises:
            ConfigError: a row has no positive.
        """
        batch = self.examples.batch(rows, draw)
        if batch.positive is None:
            raise ConfigError("pairs are judged, and the data has single texts")
        k = batch.negatives_per_query
        asked = [query for query in batch.query for _ in range(k)]
        return replace(
            batch,
            query=list(map(self._pair, batch.query, batch.positive)),
            positive=None,
            negative=list(map(self._pair, asked, batch.negative)),
        )

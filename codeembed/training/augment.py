"""CoCoSoDa's soft augmentation of keys, where rows become batches (Shi et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codeembed.training.config import AugmentConfig
from codeembed.training.reading import Remembered, code_of, parsed_language
from codeembed.views.align import IGNORED, align, token_labels
from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch, Examples
from mmembed.gpte.rows import Row

__all__ = ["AugmentedExamples"]

Types = np.ndarray[Any, np.dtype[np.int64]]


class AugmentedExamples:
    """Keys whose rows are masked in part, or show types of tokens: other ones in every epoch.

    The momentum encoder reads them, as ``ExampleBatch.keys``, and the encoder the rows as they are.
    A row of code draws one of the two; a row of text is masked. Rows keep their lengths: every
    subword of a token becomes the first subword of its type's name. Implements
    :class:`mmembed.gpte.data.batches.Examples`.

    Args:
        examples: the rows.
        tokenizer: a byte-level one with a mask token.

    Raises:
        ConfigError: it has no mask token, or the language has no syntax trees.
    """

    def __init__(self, examples: Examples, tokenizer: Any, config: AugmentConfig) -> None:
        if tokenizer.mask_token_id is None:
            raise ConfigError("augment: the tokenizer has no mask token")
        self.examples, self.tokenizer, self.config = examples, tokenizer, config
        self._language = parsed_language(config.language)
        self._special = np.array(sorted(tokenizer.all_special_ids))
        self._types: Remembered[Types] = Remembered()

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int]) -> ExampleBatch:
        """As :meth:`mmembed.gpte.data.batches.Examples.batch`.

        Raises:
            ConfigError: the tokenizer is not byte-level.
        """
        batch = self.examples.batch(rows, draw)
        columns = {"query": batch.query, "positive": batch.positive or []}
        keys = {}
        for side, (name, column) in enumerate(columns.items()):
            seeds = [np.random.default_rng([*draw[:2], side, row]) for row in rows]
            is_code = name in self.config.code
            keys[name] = [
                self._changed(row, is_code, random)
                for row, random in zip(column, seeds, strict=bool(column))
            ]
        return replace(batch, keys=keys)

    def _changed(self, row: Row, is_code: bool, random: np.random.Generator) -> Row:
        ids = np.array(row.input_ids)
        picked = random.random(len(ids)) < self.config.probability
        if is_code and random.random() < 0.5:
            types = self._types_of(row)
            new = np.where(picked & (types >= 0), types, ids)
        else:
            new = np.where(picked & ~np.isin(ids, self._special), self.tokenizer.mask_token_id, ids)
        return replace(row, input_ids=new.tolist())

    def _types_of(self, row: Row) -> Types:
        """For every subword the one that stands for its token's type; -1 outside of tokens."""
        return self._types.get(row.input_ids, self._read)

    def _read(self, ids: list[int]) -> Types:
        code, spans = code_of(self.tokenizer, ids, self._language)
        labels = token_labels(code)
        places = align(labels, spans)
        return np.array([-1 if at == IGNORED else self._named(labels[at].type) for at in places])

    def _named(self, kind: str) -> int:
        return int(self.tokenizer(kind, add_special_tokens=False)["input_ids"][0])

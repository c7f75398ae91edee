"""A text and its code as one row, which a model reads together."""

from __future__ import annotations

from typing import Any

from mmembed.errors import ConfigError
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["Joiner"]


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

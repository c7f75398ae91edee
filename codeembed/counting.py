"""BERT's own token count at many times the speed: words of code repeat, so each is cut once."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from codeembed.tokens import TokenizerCounter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["WordPieceCounter", "fast_counter"]

_PIECE = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
# Plain rows: printable ASCII and the white space that the tokenizer takes for such.
_PLAIN = re.compile(r"[\t\n\r -~]*")
_MAX_KNOWN = 300_000


class WordPieceCounter:
    """Counts like a lower-casing BERT tokenizer, special tokens included; picklable.

    A plain ASCII text is cut at white space and punctuation, every mark is one token, and a word is
    as many as its word pieces. Other texts go to the tokenizer itself.

    Args:
        tokenizer: BERT's: lower case, split at punctuation, WordPiece.
    """

    rows_add_up = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._exact = TokenizerCounter(tokenizer)
        self._special = self._exact([""])[0]
        kinds = json.loads(tokenizer.to_str())
        names = [re.escape(each["content"]) for each in kinds.get("added_tokens", ())]
        self._added = re.compile("|".join(names)) if names else re.compile(r"(?!)")
        self._known: dict[str, int] = {}

    def __call__(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        pieces: list[list[str] | None] = [
            _PIECE.findall(text.lower())
            if text.isascii() and _PLAIN.fullmatch(text) and not self._added.search(text)
            else None
            for text in texts
        ]
        known = self._known
        if len(known) > _MAX_KNOWN:
            known.clear()
        new = list({each for found in pieces if found for each in found} - known.keys())
        if new:
            counts = self._exact(new)
            known.update(zip(new, (count - self._special for count in counts), strict=True))
        others = iter(self._exact([t for t, p in zip(texts, pieces, strict=True) if p is None]))
        return [
            next(others) if found is None else self._special + sum(map(known.__getitem__, found))
            for found in pieces
        ]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_known": {}}


def fast_counter(tokenizer: Tokenizer) -> WordPieceCounter | TokenizerCounter:
    """The quick counter where the tokenizer is BERT's and lower-cases, else the exact one."""
    exact = TokenizerCounter(tokenizer)
    normalizer = json.loads(tokenizer.to_str())["normalizer"] or {}
    if exact.rows_add_up and normalizer.get("lowercase") and normalizer.get("clean_text"):
        return WordPieceCounter(tokenizer)
    return exact

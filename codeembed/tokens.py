"""Counting tokens as a model does, also in worker processes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mmembed.search.model import EmbeddingModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["CodeModel", "TokenizerCounter", "portable_counter"]

_SAMPLE = ["", "def f(x):\n    return x\n", "naïve 日本語 \U0001f600\t#include <a>"]


class CodeModel(EmbeddingModel, Protocol):
    """What a code index asks of a model: vectors, and a count of tokens to cut by."""

    @property
    def max_tokens(self) -> int:
        """Longest text that is read whole, special tokens included."""
        ...

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        """Tokens of each text, special tokens included, before any cut."""
        ...


class TokenizerCounter:
    """Counts with a ``tokenizers.Tokenizer``; small and picklable, unlike a model.

    Attributes:
        rows_add_up: The tokens of a text are exactly those of its rows, so that chunks need not be
            counted again. True of BERT's tokenizers, for which a line end is only a gap.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from tokenizers import Tokenizer as _Tokenizer

        self._tokenizer = _Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        kinds = json.loads(self._tokenizer.to_str())
        self.rows_add_up = [
            (kinds[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")
        ] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]

    def __call__(self, texts: list[str]) -> list[int]:
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(texts)]


def portable_counter(model: Any) -> Callable[[list[str]], list[int]] | None:
    """A picklable counter that agrees with ``model.count_tokens``, or None if there is none.

    Looks for a fast tokenizer on the model or its backbone, and checks it on texts in which
    tokenizers differ.
    """
    from codeembed.counting import fast_counter

    for owner in (model, getattr(model, "backbone", None)):
        wrapped = getattr(owner, "tokenizer", None)
        backend: Any = getattr(wrapped, "backend_tokenizer", wrapped)
        if not hasattr(backend, "encode_batch_fast"):
            continue
        try:
            counter = fast_counter(backend)
            pickle.dumps(counter)
        except (TypeError, ValueError, AttributeError, pickle.PicklingError):
            continue
        if counter(_SAMPLE) == list(model.count_tokens(_SAMPLE)):
            return counter
    return None

"""What a late-interaction match rests on: the document token that each query token found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.errors import ConfigError, InputError

if TYPE_CHECKING:
    from mmembed.embedder import Embedder
    from mmembed.inputs.items import ItemLike

__all__ = ["Explanation", "TokenMatch", "explain", "explain_tokens"]


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A query token and what it found.

    Attributes:
        query: the query's token.
        document: the document's token with the largest dot product; of an image its place.
        place: number of that token's vector.
        score: the dot product, which is this token's share of MaxSim.
    """

    query: str
    document: str
    place: int
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """MaxSim, taken apart.

    Attributes:
        score: the sum of the matches' scores.
        matches: one a query token, in the query's order.
        share: ``(document tokens,)`` float32: how much of the score each document token brought.
    """

    score: float
    matches: Sequence[TokenMatch]
    share: np.ndarray[Any, np.dtype[np.float32]]

    def __str__(self) -> str:
        lines = [f"{one.score:6.3f}  {one.query:16} {one.document}" for one in self.matches]
        return "\n".join([f"MaxSim {self.score:.3f}", *lines])


def explain_tokens(
    query: np.ndarray[Any, Any],
    document: np.ndarray[Any, Any],
    query_tokens: Sequence[str] = (),
    document_tokens: Sequence[str] = (),
) -> Explanation:
    """Take the MaxSim of ``query (q, k)`` and ``document (t, k)`` apart (ColBERT).

    Args:
        query: unit vectors of the query's tokens.
        document: unit vectors of the document's.
        query_tokens: their words; numbers where they are not given.
        document_tokens: likewise.

    Raises:
        InputError: a side has no tokens, or other words than vectors.
    """
    if not len(query) or not len(document):
        raise InputError("explanation", "a side has no token vectors")
    names = []
    for side, vectors, words in (
        ("query", query, query_tokens),
        ("document", document, document_tokens),
    ):
        if words and len(words) != len(vectors):
            raise InputError(side, f"has {len(vectors)} vectors and {len(words)} words")
        names.append(list(words) or [str(i) for i in range(len(vectors))])
    scores = np.asarray(query, dtype=np.float32) @ np.asarray(document, dtype=np.float32).T
    places = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), places]
    share = np.zeros(len(document), dtype=np.float32)
    np.add.at(share, places, best)
    matches = [
        TokenMatch(names[0][row], names[1][place], int(place), float(value))
        for row, (place, value) in enumerate(zip(places, best, strict=True))
    ]
    return Explanation(float(best.sum()), matches, share)


def explain(model: Embedder, query: ItemLike, document: ItemLike) -> Explanation:
    """Explain the late-interaction match of two items.

    Raises:
        ConfigError: the model has no multi-vector output.
    """
    if "multi" not in model.outputs:
        raise ConfigError("this model has no token vectors to explain a match by")
    vectors = [
        model.encode(item, role=role, output="multi")  # type: ignore[arg-type]
        for item, role in ((query, "query"), (document, "document"))
    ]
    words = [
        _words(model, item, role, len(found))
        for item, role, found in zip((query, document), ("query", "document"), vectors, strict=True)
    ]
    return explain_tokens(vectors[0], vectors[1], words[0], words[1])


def _words(model: Embedder, item: Any, role: str, count: int) -> list[str]:
    """The tokens that the vectors are of; nothing where they are not a text's own tokens."""
    tokenizer = getattr(model.backbone, "tokenizer", None)
    if tokenizer is None or not isinstance(item, str):
        return []
    text = model.config.prompts.get(role, "") + item
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=True).ids
    words = [str(one) for one in tokenizer.convert_ids_to_tokens(ids)]
    return words if len(words) == count else []

"""Late interaction in an index: how token vectors are pooled, kept, summarised and scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappush, heapreplace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import ConfigError, InputError
from mmembed.search.fde import FixedEncoding
from mmembed.search.maxsim import maxsim_joined
from mmembed.search.model import EmbeddingModel, multi_vector_model
from mmembed.search.token_codec import (
    BinaryInt8,
    TokenCodec,
    codec_named,
    read_tokens,
    token_offsets,
)
from mmembed.search.token_pooling import pool_tokens

__all__ = ["LateInteraction", "TokenStorage", "storage_for"]

_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_META = "late_interaction"
# Documents whose tokens are in memory at one time when every one is scored.
_SCORED_AT_ONCE = 1024
# Of the documents that bits choose among, so many are scored by bytes at least.
_FINE_AT_LEAST = 100


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """What a new index is to do with a model's token vectors.

    Attributes:
        pool: how many tokens become one, by hierarchical clustering; 1 keeps them all.
        codec: ``"float16"``, ``"int8"``, ``"binary"``, or ``"binary+int8"``: bits choose a quarter
            of the documents, whose bytes decide.
        planes: hyperplanes of one cut of the fixed dimensional encoding (MUVERA).
        cuts: how many cuts it has; its length is ``cuts * projected * 2 ** planes``.
        projected: dimensions that a token keeps in it.
    """

    pool: float = 1.0
    codec: str = "int8"
    planes: int = 4
    cuts: int = 16
    projected: int = 8

    def __post_init__(self) -> None:
        codec_named(self.codec)
        if self.pool < 1:
            raise ConfigError(f"pool={self.pool}: how many tokens become one; use 1 or more")
        if not (0 <= self.planes <= 12 and self.cuts > 0 and self.projected > 0):
            raise ConfigError(
                "late interaction: planes must be 0 to 12, cuts and projected above 0"
            )


@dataclass(frozen=True)
class TokenStorage:
    """The token vectors of one index.

    Attributes:
        settings: what the index was made with.
        width: dimensions of a token.
    """

    settings: LateInteraction
    width: int
    encoding: FixedEncoding = field(init=False)
    codec: TokenCodec = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        encoding = FixedEncoding(self.width, s.planes, s.cuts, s.projected)
        object.__setattr__(self, "encoding", encoding)
        object.__setattr__(self, "codec", codec_named(s.codec))

    def as_meta(self) -> dict[str, str]:
        """What the store remembers, for :meth:`of_meta`."""
        return {_META: json.dumps({**asdict(self.settings), "width": self.width})}

    @classmethod
    def of_meta(cls, meta: Mapping[str, str]) -> TokenStorage | None:
        """What a store was made with; None where it keeps no token vectors."""
        if _META not in meta:
            return None
        values = json.loads(meta[_META])
        width = values.pop("width")
        return cls(LateInteraction(**values), width)

    def keep(self, tokens: _Float32) -> tuple[bytes, _Float32]:
        """The bytes and the summary to store for the ``(t, width)`` tokens of a document."""
        pooled = pool_tokens(tokens, self.settings.pool)
        return self.codec.encode(pooled), self.encoding.document(pooled)

    def check_query(self, tokens: _Float32 | None) -> _Float32:
        """Token vectors of a query, in float32.

        Raises:
            InputError: there are none, or they have another width.
        """
        if tokens is None or tokens.ndim != 2 or not len(tokens) or tokens.shape[1] != self.width:
            found = "no token vectors" if tokens is None else f"token vectors of {tokens.shape}"
            raise InputError("query", f"{found}: the index holds them of width {self.width}")
        return np.asarray(tokens, dtype=np.float32)

    def scores(self, query: _Float32, payloads: Sequence[bytes]) -> _Float32:
        """MaxSim of a query with every stored document: ``(n,)`` float32."""
        if not payloads:
            return np.empty(0, dtype=np.float32)
        if isinstance(self.codec, BinaryInt8):
            return self._scores_by_bits(self.codec, query, payloads)
        tokens, offsets = read_tokens(self.codec, payloads, self.width)
        return maxsim_joined(query, tokens, offsets)

    def _scores_by_bits(
        self, codec: BinaryInt8, query: _Float32, payloads: Sequence[bytes]
    ) -> _Float32:
        """MaxSim of those that the bits like best; minus infinity for the rest."""
        offsets = token_offsets(codec, payloads, self.width)
        coarse = codec.coarse(query, b"".join(payloads), self.width, offsets)
        kept = min(len(payloads), max(_FINE_AT_LEAST, len(payloads) // 4))
        chosen = np.argpartition(-coarse, kept - 1)[:kept]
        scores = np.full(len(payloads), -np.inf, dtype=np.float32)
        tokens, starts = read_tokens(codec, [payloads[i] for i in chosen], self.width)
        scores[chosen] = maxsim_joined(query, tokens, starts)
        return scores

    def best(
        self, query: _Float32, documents: Iterable[tuple[str, bytes]], k: int
    ) -> list[tuple[str, float]]:
        """Ids and MaxSim of the best ``k`` of any number of documents, best first."""
        heap: list[tuple[float, str]] = []
        stream = iter(documents)
        while some := list(islice(stream, _SCORED_AT_ONCE)):
            scores = self.scores(query, [payload for _, payload in some])
            for (key, _), score in zip(some, scores.tolist(), strict=True):
                if score == -np.inf:
                    continue
                if len(heap) < k:
                    heappush(heap, (score, key))
                elif score > heap[0][0]:
                    heapreplace(heap, (score, key))
        return [(key, score) for score, key in sorted(heap, reverse=True)]


def storage_for(model: EmbeddingModel, settings: LateInteraction) -> TokenStorage:
    """The storage of a new index of this model.

    Raises:
        ConfigError: the model gives no vector a token.
    """
    stream = multi_vector_model(model).encode_stream(["."], role="document", output=("multi",))
    tokens = next(iter(stream)).multi
    if tokens is None:
        raise ConfigError(f"model {model.name!r} gave no token vectors of a text")
    return TokenStorage(settings, tokens.shape[1])

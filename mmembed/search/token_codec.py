"""How token vectors are kept: as half floats, bytes, or bits.

Every token is one record of a fixed size, so that the tokens of many documents are read together
by joining their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np

from mmembed.errors import ConfigError, InputError

__all__ = [
    "CODECS",
    "Binary",
    "BinaryInt8",
    "Float16",
    "Int8",
    "TokenCodec",
    "codec_named",
    "read_tokens",
    "token_offsets",
]

_Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
_Offsets: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class TokenCodec(Protocol):
    """Unit vectors to bytes and back, a fixed number of bytes a token."""

    def size(self, width: int) -> int:
        """Bytes of one token of ``width`` dimensions."""
        ...

    def encode(self, tokens: _Float32) -> bytes:
        """The bytes of ``(t, k)`` unit vectors."""
        ...

    def decode(self, data: bytes, width: int) -> _Float32:
        """``(t, k)`` float32 of what :meth:`encode` gave, or of several of them joined."""
        ...


class Float16:
    """Two bytes a dimension: an error of a 2,048th, which no ranking notices."""

    def size(self, width: int) -> int:
        return 2 * width

    def encode(self, tokens: _Float32) -> bytes:
        return np.asarray(tokens, dtype="<f2").tobytes()

    def decode(self, data: bytes, width: int) -> _Float32:
        return np.frombuffer(data, dtype="<f2").reshape(-1, width).astype(np.float32)


class Int8:
    """One byte a dimension, and the scale of each token as a half float."""

    def size(self, width: int) -> int:
        return width + 2

    def encode(self, tokens: _Float32) -> bytes:
        wide = np.asarray(tokens, dtype=np.float32)
        scales = (np.abs(wide).max(axis=1) / 127).astype("<f2")
        scales = np.maximum(scales, np.float16(1e-6))
        records = np.empty(len(wide), dtype=_int8_record(wide.shape[1]))
        records["scale"] = scales
        steps = np.rint(wide / scales.astype(np.float32)[:, None])
        records["steps"] = np.clip(steps, -127, 127).astype(np.int8)
        return records.tobytes()

    def decode(self, data: bytes, width: int) -> _Float32:
        records = np.frombuffer(data, dtype=_int8_record(width))
        wide: _Float32 = records["steps"].astype(np.float32)
        wide *= records["scale"].astype(np.float32)[:, None]
        return wide


class Binary:
    """The sign of each dimension: a 32nd of float32. Queries stay as they are (asymmetric)."""

    def size(self, width: int) -> int:
        return -(-width // 8)

    def encode(self, tokens: _Float32) -> bytes:
        return np.packbits(np.asarray(tokens) > 0, axis=1).tobytes()

    def decode(self, data: bytes, width: int) -> _Float32:
        packed = np.frombuffer(data, dtype=np.uint8).reshape(-1, self.size(width))
        signs = np.unpackbits(packed, axis=1, count=width).astype(np.float32)
        return (2 * signs - 1) / np.float32(np.sqrt(width))


class BinaryInt8:
    """Both: bits to look through many documents, and bytes to score the best of them again."""

    def size(self, width: int) -> int:
        return _both_record(width).itemsize

    def encode(self, tokens: _Float32) -> bytes:
        wide = np.asarray(tokens, dtype=np.float32)
        records = np.empty(len(wide), dtype=_both_record(wide.shape[1]))
        fine = np.frombuffer(Int8().encode(wide), dtype=_int8_record(wide.shape[1]))
        records["signs"] = _signs(wide)
        records["steps"], records["scale"] = fine["steps"], fine["scale"]
        return records.tobytes()

    def decode(self, data: bytes, width: int) -> _Float32:
        records = np.frombuffer(data, dtype=_both_record(width))
        wide: _Float32 = records["steps"].astype(np.float32)
        wide *= records["scale"].astype(np.float32)[:, None]
        return wide

    def coarse(
        self, query: _Float32, data: bytes, width: int, offsets: _Offsets
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """MaxSim of the signs alone: ``(n,)``, over documents that begin at ``offsets``."""
        records = np.frombuffer(data, dtype=_both_record(width))
        kept = np.ascontiguousarray(records["signs"]).view(np.uint64)
        total = np.zeros(len(offsets), dtype=np.int64)
        for asked in _signs(query).view(np.uint64):
            apart = _ones(kept ^ asked)
            total += width - 2 * np.minimum.reduceat(apart, offsets).astype(np.int64)
        return total


CODECS: Mapping[str, TokenCodec] = MappingProxyType(
    {"float16": Float16(), "int8": Int8(), "binary": Binary(), "binary+int8": BinaryInt8()}
)
"""Every codec by the name that an index records."""


def codec_named(name: str) -> TokenCodec:
    """The codec of this name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in CODECS:
        raise ConfigError(f"token codec {name!r}: there is {', '.join(CODECS)}")
    return CODECS[name]


def read_tokens(
    codec: TokenCodec, payloads: Sequence[bytes], width: int
) -> tuple[_Float32, _Offsets]:
    """The tokens of several documents in one array, and where each document begins.

    Raises:
        InputError: bytes that are no whole number of tokens.
    """
    offsets = token_offsets(codec, payloads, width)
    return codec.decode(b"".join(payloads), width), offsets


def token_offsets(codec: TokenCodec, payloads: Sequence[bytes], width: int) -> _Offsets:
    """The first token of each of several documents, laid one after another.

    Raises:
        InputError: bytes that are no whole number of tokens.
    """
    size = codec.size(width)
    lengths = [divmod(len(payload), size) for payload in payloads]
    for position, (tokens, rest) in enumerate(lengths):
        if rest or not tokens:
            raise InputError(
                f"document {position}", f"{len(payloads[position])} bytes are no token vectors"
            )
    return np.cumsum([0, *(tokens for tokens, _ in lengths[:-1])], dtype=np.int64)


def _int8_record(width: int) -> np.dtype[Any]:
    return np.dtype([("steps", np.int8, (width,)), ("scale", "<f2")])


def _both_record(width: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("signs", np.uint8, (8 * -(-width // 64),)),
            ("steps", np.int8, (width,)),
            ("scale", "<f2"),
        ]
    )


def _signs(tokens: _Float32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One bit a dimension, in whole words of 64; what is left over is zero on both sides."""
    bits = np.packbits(np.asarray(tokens) > 0, axis=1)
    missing = 8 * -(-tokens.shape[1] // 64) - bits.shape[1]
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, missing))))


def _ones(words: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, Any]:
    """How many bits are set in each row of words."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.uint16))
    return np.asarray(_BITS[words.view(np.uint8)].sum(axis=1, dtype=np.uint16))


_BITS = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)

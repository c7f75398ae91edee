"""The code that byte-level tokens stand for, so that labels fit what the model reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

from codeembed.languages import Language
from codeembed.languages import language as find_language
from codeembed.transform.syntaxes import SYNTAXES
from codeembed.transform.tree import Code
from mmembed.errors import ConfigError

__all__ = ["SEPARATOR", "Remembered", "code_of", "decoded", "parsed_language"]

SEPARATOR = "\x1e"
"""ASCII's record separator, which no source holds: between a code and its tree in one text."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was read off rows, by their tokens, so that later epochs parse nothing again.

    Args:
        most: rows whose results are kept.
    """

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._kept: dict[tuple[int, ...], T] = {}

    def get(self, ids: list[int], read: Callable[[list[int]], T]) -> T:
        """What ``read`` gave for these tokens, now or before."""
        key = tuple(ids)
        found = self._kept.get(key)
        if found is None:
            found = read(ids)
            if len(self._kept) < self._most:
                self._kept[key] = found
        return found


def parsed_language(name: str) -> Language:
    """The language of this name.

    Raises:
        ConfigError: it has no syntax trees here.
    """
    found = find_language(name)
    if found is None or found.name not in SYNTAXES:
        raise ConfigError(f"{name!r} has no syntax trees here (known: {', '.join(SYNTAXES)})")
    return found


def code_of(
    tokenizer: Any, ids: list[int], language: Language
) -> tuple[Code, list[tuple[int, int]]]:
    """What tokens decode to ahead of any :data:`SEPARATOR`, and the byte span of every token.

    A code that was cut off has errors at its end; the tree before them is sound.

    Raises:
        ConfigError: the tokenizer is not byte-level.
    """
    text, spans = decoded(tokenizer, ids)
    return Code(text.partition(SEPARATOR.encode())[0], language, b"", b""), spans


def decoded(tokenizer: Any, ids: list[int]) -> tuple[bytes, list[tuple[int, int]]]:
    """What tokens decode to, and the byte span of each; special tokens have empty ones.

    Raises:
        ConfigError: the tokenizer is not byte-level.
    """
    special = set(tokenizer.all_special_ids)
    pieces = [
        b"" if token in special else _bytes(raw)
        for token, raw in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    ]
    spans = []
    end = 0
    for piece in pieces:
        spans.append((end, end + len(piece)))
        end += len(piece)
    return b"".join(pieces), spans


@cache
def _byte_of() -> dict[str, int]:
    """The bytes that the characters of byte-level BPE stand for (Radford et al., 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    found = {chr(byte): byte for byte in shown}
    return found | {chr(256 + at): byte for at, byte in enumerate(hidden)}


def _bytes(token: str) -> bytes:
    known = _byte_of()
    try:
        return bytes(known[character] for character in token)
    except KeyError:
        raise ConfigError(
            f"token {token!r}: to read code back, tokens must be byte-level, such as CodeBERT's"
        ) from None

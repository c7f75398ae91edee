"""Plain text files, cut into passages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from mmembed.errors import InputError
from mmembed.inputs.source import local_path, unreadable

__all__ = ["PASSAGE_WORDS", "iter_passages"]

PASSAGE_WORDS = 200
"""Words of one passage at most."""

# Chinese and Japanese write no spaces, and minified text hardly any: length counts there too.
_WORD_CHARACTERS = 8
_CHUNK = 1 << 16
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def iter_passages(path: Path, *, max_words: int = PASSAGE_WORDS) -> Iterator[str]:
    """Consecutive passages of a UTF-8 text file, without reading all of it into memory.

    Paragraphs (parted by blank lines) are joined while they fit into ``max_words``; a longer one
    is cut between sentences, or between words where one sentence is longer still.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or holds no text. Nothing has been
            yielded by then.
    """
    _check(path)
    pieces = (piece for paragraph in _paragraphs(path) for piece in _fit(paragraph, max_words))
    yield from _join(pieces, "\n\n", max_words)


def _check(path: Path) -> None:
    """Read it once to the end: half of a file must not be indexed before the bad byte shows."""
    local_path(path)
    has_text = False
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for chunk in iter(partial(stream.read, _CHUNK), ""):
                if "\0" in chunk:
                    raise InputError(str(path), "holds NUL bytes: it is not a text file")
                has_text = has_text or not chunk.isspace()
    except UnicodeDecodeError as error:
        raise InputError(
            str(path),
            f"is not UTF-8 text: byte 0x{error.object[error.start]:02x} cannot be decoded",
            f"convert it: iconv -f ENCODING -t UTF-8 {path.name}",
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not has_text:
        raise InputError(str(path), "holds no text")


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    with path.open(encoding="utf-8-sig") as stream:
        for line in iter(partial(stream.readline, _CHUNK), ""):
            if line.strip():
                lines.append(line)
                size += len(line)
            # A Markdown heading belongs to what follows it.
            is_end = not line.strip() and lines and not lines[-1].startswith("#")
            # A paragraph without end is handed on in parts, so that memory stays bounded.
            if is_end or size > _CHUNK:
                yield "".join(lines).strip()
                lines, size = [], 0
    if lines:
        yield "".join(lines).strip()


def _fit(paragraph: str, max_words: int) -> Iterator[str]:
    """Parts of one paragraph, none over ``max_words``."""
    if _length(paragraph) <= max_words:
        yield paragraph
        return
    sentences = _SENTENCE_END.split(paragraph)
    parts = (part for sentence in sentences for part in _fit_sentence(sentence, max_words))
    yield from _join(parts, " ", max_words)


def _fit_sentence(sentence: str, max_words: int) -> Iterator[str]:
    if _length(sentence) <= max_words:
        yield sentence
        return
    longest = max_words * _WORD_CHARACTERS
    words = (
        word[start : start + longest]
        for word in sentence.split()
        for start in range(0, len(word), longest)
    )
    yield from _join(words, " ", max_words)


def _join(parts: Iterable[str], separator: str, max_words: int) -> Iterator[str]:
    """Consecutive parts joined while they fit."""
    kept: list[str] = []
    length = 0
    for part in parts:
        added = _length(part)
        if kept and length + added > max_words:
            yield separator.join(kept)
            kept, length = [], 0
        kept.append(part)
        length += added
    if kept:
        yield separator.join(kept)


def _length(text: str) -> int:
    """Words, or what the characters are worth where words are long or not parted by spaces."""
    return max(len(text.split()), len(text) // _WORD_CHARACTERS)

"""Words of source code, for lexical search."""

from __future__ import annotations

import re

__all__ = ["identifiers", "parts", "words"]

_RUN = re.compile(r"\w+")
# An acronym before a capitalised word (HTTP in HTTPServer), a word, an acronym, a number.
_PART = re.compile(r"[A-Z]+(?=[A-Z][^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")
_MAX_WORD = 64
_MAX_KNOWN = 200_000


class _Words(dict[str, tuple[str, ...]]):
    """What a run of letters, digits and underscores gives; code repeats the same ones."""

    def __missing__(self, run: str) -> tuple[str, ...]:
        if len(self) >= _MAX_KNOWN:
            self.clear()
        found = self[run] = _words_of(run)
        return found


_known = _Words()


def identifiers(text: str) -> list[str]:
    """The runs of letters, digits and underscores, as they are."""
    return _RUN.findall(text)


def words(text: str) -> list[str]:
    """Lower-case words: every identifier whole, and its parts where it has several.

    ``parseHTTPResponse_v2`` gives ``parsehttpresponse_v2 parse http response v 2``. Words longer
    than 64 characters (hashes, base64) are left out.
    """
    return [word for run in _RUN.findall(text) for word in _known[run]]


def parts(word: str) -> tuple[str, ...]:
    """The parts of a word of :func:`words`; a word without parts is its own."""
    return _known[word][1:] or (word,)


def _words_of(run: str) -> tuple[str, ...]:
    whole = run.lower()
    found = (whole,) if len(whole) <= _MAX_WORD else ()
    # Most words are plain lower case and are their only part.
    if run.isascii() and run.isalpha() and (run == whole or run[1:] == whole[1:]):
        return found
    pieces = [part.lower() for part in _PART.findall(run)]
    if pieces == [whole]:
        return found
    return (*found, *(part for part in pieces if len(part) <= _MAX_WORD))

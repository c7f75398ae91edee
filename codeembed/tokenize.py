"""Words of source code, for lexical search."""

from __future__ import annotations

import re

__all__ = ["identifiers", "words"]

_RUN = re.compile(r"\w+")
# An acronym before a capitalised word (HTTP in HTTPServer), a word, an acronym, a number.
_PART = re.compile(r"[A-Z]+(?=[A-Z][^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")
_MAX_WORD = 64


def identifiers(text: str) -> list[str]:
    """The runs of letters, digits and underscores, as they are."""
    return _RUN.findall(text)


def words(text: str) -> list[str]:
    """Lower-case words: every identifier whole, and its parts where it has several.

    ``parseHTTPResponse_v2`` gives ``parsehttpresponse_v2 parse http response v 2``. Words longer
    than 64 characters (hashes, base64) are left out.
    """
    found = []
    for run in _RUN.findall(text):
        whole = run.lower()
        if len(whole) <= _MAX_WORD:
            found.append(whole)
        # Most words are plain lower case and are their only part.
        if run.isascii() and run.isalpha() and (run == whole or run[1:] == whole[1:]):
            continue
        parts = [part.lower() for part in _PART.findall(run)]
        if parts != [whole]:
            found.extend(part for part in parts if len(part) <= _MAX_WORD)
    return found

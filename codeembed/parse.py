"""Bytes in, syntax tree out."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from codeembed.languages import Language, grammar, query_source

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["DEFAULT_TIME_LIMIT", "ParseTimeoutError", "definition_query", "parse"]

DEFAULT_TIME_LIMIT = 5.0
"""Seconds that one file may take: real files parse at megabytes a second."""

_READ_SIZE = 1 << 16
_local = threading.local()


class ParseTimeoutError(Exception):
    """The parser did not finish in time."""


def parse(
    source: bytes, language: Language, time_limit: float = DEFAULT_TIME_LIMIT
) -> tree_sitter.Tree:
    """Parse a whole file or a fragment; syntax errors become ERROR nodes.

    The tree does not hold the bytes: slice ``source`` with the byte offsets of its nodes.

    Args:
        source: The file's bytes, without a byte-order mark.
        language: Which grammar to use.
        time_limit: Seconds after which to give up.

    Raises:
        ParseTimeoutError: the limit was reached.
    """
    parser = _parser(language.module, language.entry_for(source))
    deadline = time.monotonic() + time_limit

    # tree-sitter ignores the progress callback for a bytes object, hence the reader.
    def read(offset: int, _point: object) -> bytes:
        return source[offset : offset + _READ_SIZE]

    def out_of_time(_offset: int, _has_error: bool) -> bool:
        return time.monotonic() > deadline

    try:
        return parser.parse(read, progress_callback=out_of_time)
    except ValueError:
        parser.reset()
        raise ParseTimeoutError(f"not parsed within {time_limit:g} s") from None


def _parser(module: str, entry: str) -> tree_sitter.Parser:
    """One parser a thread and grammar; a parser cannot be pickled or shared between threads."""
    import tree_sitter

    parsers: dict[tuple[str, str], tree_sitter.Parser] = _local.__dict__.setdefault("parsers", {})
    if (module, entry) not in parsers:
        parsers[module, entry] = tree_sitter.Parser(grammar(module, entry))
    return parsers[module, entry]


@cache
def definition_query(language: Language, entry: str) -> tree_sitter.Query:
    """The compiled ``queries/<language>.scm`` for one of the language's grammars."""
    import tree_sitter

    return tree_sitter.Query(grammar(language.module, entry), query_source(language))

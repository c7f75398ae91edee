"""From the scores of several searches to one order of chunks.

Ranks of the searches are joined by reciprocal rank fusion; then come the signals that make code
different from text: what defines a name comes before what uses it, words of a path tell what a file
is about, several good chunks of a file speak for each other, and tests, examples and vendored code
stand behind what they test, show or copy. (After the recipe of semble's ranking.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from codeembed.tokenize import identifiers, parts, words

__all__ = ["Candidate", "is_symbol", "named_symbols", "rank"]

# Small: the first few places tell much more than those behind, and scores fall fast.
_RRF = 5
# A definition is worth this many first places where the query is its name; where the query mentions
# it among other words, as much as being first in every search.
_DEFINITION = 2.0
_MENTION = 1.35
# Shares that a score gains: for the file's name, its folders, and other good chunks of the file.
_STEM = 0.2
_PATH = 0.05
_COHERENCE = 0.2
_PENALTIES = (
    (re.compile(r"(?:^|/)(?:tests?|testing|specs?|__tests__)/|(?:^|/)(?:test_[^/]*|conftest\.py$)"
                r"|[_.-](?:test|tests|spec)\.\w+$", re.IGNORECASE), 0.5, ("test", "spec")),
    (re.compile(r"(?:^|/)(?:examples?|demos?|samples?|benchmarks?)/", re.IGNORECASE), 0.7,
     ("example", "demo", "sample", "benchmark")),
    (re.compile(r"(?:^|/)(?:legacy|deprecated|vendor|vendored|third_party|_vendor)/",
                re.IGNORECASE), 0.7, ("legacy", "deprecated", "vendor")),
    (re.compile(r"(?:^|/)__init__\.py$|\.d\.ts$|(?:^|/)index\.[jt]s$"), 0.9, ("init", "index")),
)  # fmt: skip
_CODE_LIKE = re.compile(r"_|\d|[a-z][A-Z]|[A-Z]{2}[a-z]")


@dataclass(slots=True)
class Candidate:
    """A chunk that some search found.

    Attributes:
        key: Of the chunk, over all indexes that are searched.
        path: Of its file, with the index it is in.
        scores: By search: ``lexical``, ``static``, ``dense``.
        defines: Whether it defines a name that the query spells out.
        score: What it is ordered by.
    """

    key: tuple[int, int]
    path: str
    scores: dict[str, float] = field(default_factory=dict)
    defines: bool = False
    score: float = 0.0


def rank(
    query: str,
    candidates: Sequence[Candidate],
    weights: Callable[[Candidate], Mapping[str, float]],
    place: Callable[[Candidate], tuple[str, int]],
) -> list[Candidate]:
    """Order candidates, best first; equal ones by where they are.

    Args:
        query: For its words.
        candidates: With the scores of the searches that found them.
        weights: How much the rank in each search counts for a candidate.
        place: File and number of a candidate's chunk, for ties.
    """
    searches = {name for each in candidates for name in each.scores}
    # Rounded, so that a last bit that depends on the order of adding decides nothing.
    by_place = sorted(candidates, key=place)
    for name in searches:
        found = [each for each in by_place if name in each.scores]
        found.sort(key=lambda each: -round(each.scores[name], 5))
        for position, each in enumerate(found, start=1):
            each.score += weights(each).get(name, 0.0) / (_RRF + position)
    asked = set(words(query))
    symbol = is_symbol(query)
    files: dict[str, float] = defaultdict(float)
    for each in candidates:
        files[each.path] += each.score
    for each in candidates:
        own = each.score
        each.score += _COHERENCE * min(files[each.path] - own, own)
        each.score *= 1.0 + _of_path(each.path, asked)
        if each.defines:
            each.score += (_DEFINITION if symbol else _MENTION) / (_RRF + 1)
        each.score *= _penalty(each.path, asked)
    return sorted(by_place, key=lambda each: -round(each.score, 9))


def named_symbols(query: str) -> set[str]:
    """The symbols that a query spells out, in lower case.

    One word alone is a symbol; in a longer query only what looks like code is, so that "search the
    index" does not ask for whatever is called ``search``.
    """
    names = identifiers(query)
    if not is_symbol(query):
        names = [name for name in names if _CODE_LIKE.search(name)]
    return {name.lower() for name in names}


def is_symbol(query: str) -> bool:
    """Whether a query is one symbol, maybe of several parts: ``parse_args``, ``Foo.bar()``."""
    return re.fullmatch(r"[\w.:#()]+", query.strip()) is not None


def _of_path(path: str, asked: set[str]) -> float:
    """How much of what a path says the query asks for."""
    place = PurePosixPath(path)
    stem = _parts(place.stem)
    value = _STEM * len(stem & asked) / max(1, len(stem))
    folders = _parts(" ".join(place.parent.parts[-3:]))
    return value + _PATH * len(folders & asked) / max(1, len(folders))


def _parts(text: str) -> set[str]:
    return {word for word in words(text) if parts(word) == (word,)}


def _penalty(path: str, asked: set[str]) -> float:
    factor = 1.0
    for pattern, by, unless in _PENALTIES:
        if pattern.search(path) and not any(word.startswith(unless) for word in asked):
            factor *= by
    return factor

"""Full text in PostgreSQL, ranked by BM25.

PostgreSQL's own ranks know nothing of how rare a word is. The formula is that of Robertson and
Zaragoza (2009); words are stemmed, and the commonest left out, as in the store on disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import DictRow

__all__ = ["WORDS", "ranked_by_words", "words_of"]

WORDS = "to_tsvector('english', {})"
"""The words of what :func:`words_of` gives, in SQL."""

_WORD = re.compile(r"[^\W_]+")
# The mean length, 100 different words, is a guess: to measure it would read the table each time.
_BM25 = """
SELECT {columns}, (
    SELECT sum(rarity * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * length(_words) / 100)))
    FROM unnest(_words) AS here(lexeme, places, weights)
    JOIN unnest(%(words)s::text[], %(rarity)s::float8[]) AS asked(lexeme, rarity) USING (lexeme),
    LATERAL cardinality(places) AS n
) AS _score
FROM items WHERE _words @@ %(any)s::tsquery AND {where} ORDER BY _score DESC LIMIT %(k)s
"""
_RARITY = """
SELECT ln(1 + (rows - seen + 0.5) / (seen + 0.5)) AS rarity
FROM (SELECT count(*) AS rows FROM items) AS every,
    unnest(%(words)s::text[]) WITH ORDINALITY AS asked(word, place),
    LATERAL (SELECT count(*) AS seen FROM items WHERE _words @@ word::tsquery) AS found
ORDER BY place
"""


def words_of(text: str) -> str:
    """Words of letters and digits alone, so that PostgreSQL sees no addresses, paths or syntax."""
    return " ".join(_WORD.findall(text))


def ranked_by_words(
    connection: psycopg.Connection[DictRow], query: str, k: int, columns: str, where: str
) -> list[dict[str, Any]]:
    """The best ``k`` rows that hold any of the words, best first, with their ``_score``."""
    asked = f"SELECT tsvector_to_array({WORDS.format('%s')}) AS words"
    words: Sequence[str] = connection.execute(asked, [words_of(query)]).fetchall()[0]["words"]
    if not words:
        return []
    quoted = [f"'{word}'" for word in words]
    rarity = connection.execute(_RARITY, {"words": quoted}).fetchall()
    return connection.execute(
        _BM25.format(columns=columns, where=where),
        {
            "words": words,
            "rarity": [row["rarity"] for row in rarity],
            "any": " | ".join(quoted),
            "k": k,
        },
    ).fetchall()

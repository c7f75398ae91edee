"""BM25 over many short documents that come and go, in memory."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BM25"]

_K1 = 1.5
_B = 0.75


class BM25:
    """Okapi BM25 in Lucene's variant, whose inverse document frequency is never negative.

    ``score(q, d) = sum_t idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avg))`` with
    ``idf(t) = ln(1 + (N - df + .5) / (df + .5))`` (Robertson and Zaragoza 2009; the constant factor
    ``k1 + 1`` is left out, as in Lucene since 8.0).

    Documents are numbered in the order in which they are added. A removed one keeps its number, is
    found no more, and counts in no statistic.
    """

    def __init__(self, k1: float = _K1, b: float = _B) -> None:
        self.k1 = k1
        self.b = b
        # Postings of a word: documents and how often each has it. Arrays hold 4 bytes an entry.
        self._documents: dict[str, array[int]] = {}
        self._counts: dict[str, array[int]] = {}
        self._lengths = array("i")
        self._words: list[tuple[str, ...] | None] = []
        self._frequency: Counter[str] = Counter()
        self._total = 0
        self._alive = 0

    def __len__(self) -> int:
        """How many documents can be found."""
        return self._alive

    def add(self, documents: Iterable[Sequence[str]]) -> None:
        """Add documents, each a list of words."""
        for words in documents:
            number = len(self._words)
            counts = Counter(words)
            for word, count in counts.items():
                if word not in self._documents:
                    self._documents[word] = array("i")
                    self._counts[word] = array("i")
                self._documents[word].append(number)
                self._counts[word].append(count)
            self._frequency.update(counts.keys())
            self._words.append(tuple(counts))
            self._lengths.append(len(words))
            self._total += len(words)
            self._alive += 1

    def remove(self, number: int) -> None:
        """Take out the document of this number.

        Raises:
            KeyError: there is none, or it was removed before.
        """
        words = self._words[number] if 0 <= number < len(self._words) else None
        if words is None:
            raise KeyError(number)
        for word in words:
            self._frequency[word] -= 1
        self._words[number] = None
        self._total -= self._lengths[number]
        self._alive -= 1

    def scores(self, query: Iterable[str]) -> npt.NDArray[np.float64]:
        """``(documents ever added,)`` scores; 0 where no word matches or the document is removed."""
        result = np.zeros(len(self._words))
        if not self._alive:
            return result
        average = self._total / self._alive or 1.0
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        for word, repeats in Counter(query).items():
            frequency = self._frequency[word]
            if not frequency:
                continue
            documents = np.frombuffer(self._documents[word], dtype=np.int32)
            counts = np.frombuffer(self._counts[word], dtype=np.int32)
            norm = self.k1 * (1 - self.b + self.b * lengths[documents] / average)
            idf = math.log(1 + (self._alive - frequency + 0.5) / (frequency + 0.5))
            result[documents] += repeats * idf * counts / (counts + norm)
        removed = [number for number, words in enumerate(self._words) if words is None]
        result[removed] = 0.0
        return result

"""BM25 over many short documents that come and go, in memory, with a file to start from."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BM25"]

_K1 = 1.5
_B = 0.75

_Ints = npt.NDArray[np.int32]


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
        # Postings of the documents that came from a file: slices of two long arrays by word.
        self._base = _Base()
        # Postings of the documents added since: documents, and how often each has the word.
        self._added: dict[str, tuple[array[int], array[int]]] = {}
        self._lengths = array("i")
        self._alive = bytearray()

    def __len__(self) -> int:
        """How many documents can be found."""
        return sum(self._alive)

    @property
    def size(self) -> int:
        """How many documents were ever added."""
        return len(self._alive)

    def add(self, documents: Iterable[Sequence[str]]) -> None:
        """Add documents, each a list of words."""
        for words in documents:
            self.add_counts(Counter(words))

    def add_counts(self, words: Mapping[str, int]) -> None:
        """Add one document: how often it has each of its words."""
        added = self._added
        number = len(self._alive)
        length = 0
        for word, count in words.items():
            postings = added.get(word)
            if postings is None:
                postings = added[word] = (array("i"), array("i"))
            postings[0].append(number)
            postings[1].append(count)
            length += count
        self._lengths.append(length)
        self._alive.append(1)

    def remove(self, number: int) -> None:
        """Take out the document of this number.

        Raises:
            KeyError: there is none, or it was removed before.
        """
        if not 0 <= number < len(self._alive) or not self._alive[number]:
            raise KeyError(number)
        self._alive[number] = 0

    def scores(self, query: Iterable[str]) -> npt.NDArray[np.float64]:
        """``(size,)`` scores; 0 where no word matches and for removed documents."""
        result = np.zeros(self.size)
        alive = np.frombuffer(self._alive, dtype=np.uint8).astype(bool)
        total = int(alive.sum())
        if not total:
            return result
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        average = float(lengths[alive].mean()) or 1.0
        for word, repeats in Counter(query).items():
            documents, counts = self._postings(word)
            found = alive[documents]
            documents, counts = documents[found], counts[found]
            norm = self.k1 * (1 - self.b + self.b * lengths[documents] / average)
            frequency = len(documents)
            idf = math.log(1 + (total - frequency + 0.5) / (frequency + 0.5))
            result[documents] += repeats * idf * counts / (counts + norm)
        return result

    def _postings(self, word: str) -> tuple[_Ints, _Ints]:
        documents, counts = self._base.postings(word)
        if word in self._added:
            new_documents, new_counts = self._added[word]
            documents = np.concatenate([documents, np.array(new_documents, np.int32)])
            counts = np.concatenate([counts, np.array(new_counts, np.int32)])
        return documents, counts

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything there is to save, removed documents too."""
        words = sorted({*self._base.words(), *(word.encode() for word in self._added)})
        postings = [self._postings(word.decode()) for word in words]
        empty = [np.empty(0, np.int32)]
        return {
            "words": np.frombuffer(b"".join(words), dtype=np.uint8),
            "word_ends": np.cumsum([len(word) for word in words], dtype=np.int64),
            "ends": np.cumsum([len(documents) for documents, _ in postings], dtype=np.int64),
            "documents": np.concatenate([documents for documents, _ in postings] or empty),
            "counts": np.concatenate([counts for _, counts in postings] or empty),
            "lengths": np.array(self._lengths, np.int32),
            "alive": np.frombuffer(bytes(self._alive), dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> BM25:
        """What :meth:`arrays` gave; the large ones may be mapped files."""
        index = cls()
        index._base = _Base(
            *(arrays[name] for name in ("words", "word_ends", "ends", "documents", "counts"))  # type: ignore[arg-type]
        )
        index._lengths = array("i", np.ascontiguousarray(arrays["lengths"], np.int32).tobytes())
        index._alive = bytearray(arrays["alive"].tobytes())
        return index


class _Base:
    """Postings that were read from a file: words in order, found by bisection."""

    def __init__(
        self,
        words: npt.NDArray[np.uint8] | None = None,
        word_ends: npt.NDArray[np.int64] | None = None,
        ends: npt.NDArray[np.int64] | None = None,
        documents: _Ints | None = None,
        counts: _Ints | None = None,
    ) -> None:
        self._words = words if words is not None else np.empty(0, np.uint8)
        none = np.empty(0, np.int64)
        self._word_ends = none if word_ends is None else word_ends
        self._ends = none if ends is None else ends
        self._documents = np.empty(0, np.int32) if documents is None else documents
        self._counts = np.empty(0, np.int32) if counts is None else counts

    def __len__(self) -> int:
        return len(self._word_ends)

    def __getitem__(self, place: int) -> bytes:
        start = int(self._word_ends[place - 1]) if place else 0
        return self._words[start : int(self._word_ends[place])].tobytes()

    def words(self) -> Iterator[bytes]:
        """All words, in order."""
        return (self[place] for place in range(len(self)))

    def postings(self, word: str) -> tuple[_Ints, _Ints]:
        """Documents that hold the word, ascending, and how often."""
        wanted = word.encode()
        place = bisect_left(self, wanted)
        if place == len(self) or self[place] != wanted:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        start = int(self._ends[place - 1]) if place else 0
        end = int(self._ends[place])
        return np.asarray(self._documents[start:end]), np.asarray(self._counts[start:end])

"""BM25 over many short documents that come and go, in memory, with a file to start from."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

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
        self._slices: dict[str, tuple[int, int]] = {}
        self._documents: _Ints = np.empty(0, np.int32)
        self._counts: _Ints = np.empty(0, np.int32)
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
        added = self._added
        for words in documents:
            number = len(self._alive)
            for word, count in Counter(words).items():
                postings = added.get(word)
                if postings is None:
                    postings = added[word] = (array("i"), array("i"))
                postings[0].append(number)
                postings[1].append(count)
            self._lengths.append(len(words))
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
        start, end = self._slices.get(word, (0, 0))
        documents, counts = self._documents[start:end], self._counts[start:end]
        if word in self._added:
            new_documents, new_counts = self._added[word]
            documents = np.concatenate([documents, np.array(new_documents, np.int32)])
            counts = np.concatenate([counts, np.array(new_counts, np.int32)])
        return documents, counts

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything there is to save, removed documents too."""
        words = list({**self._slices, **self._added})
        postings = [self._postings(word) for word in words]
        empty = [np.empty(0, np.int32)]
        return {
            "words": np.frombuffer("\n".join(words).encode(), dtype=np.uint8),
            "ends": np.cumsum([len(documents) for documents, _ in postings], dtype=np.int64),
            "documents": np.concatenate([documents for documents, _ in postings] or empty),
            "counts": np.concatenate([counts for _, counts in postings] or empty),
            "lengths": np.array(self._lengths, np.int32),
            "alive": np.frombuffer(bytes(self._alive), dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.generic]]) -> BM25:
        """What :meth:`arrays` gave."""
        index = cls()
        joined = arrays["words"].tobytes().decode()
        ends = arrays["ends"].tolist()
        words = joined.split("\n") if joined else []
        index._slices = dict(zip(words, zip([0, *ends], ends, strict=False), strict=True))
        index._documents = arrays["documents"].astype(np.int32)
        index._counts = arrays["counts"].astype(np.int32)
        index._lengths = array("i", arrays["lengths"].tobytes())
        index._alive = bytearray(arrays["alive"].tobytes())
        return index


def save_arrays(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write an ``.npz`` so that readers see the old file or the new one, never a part of it."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    partial.replace(path)

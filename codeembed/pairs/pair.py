"""One training pair, and which split its repository belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Kind", "Pair", "Split", "digest", "split_of"]

Kind = Literal["docstring", "comment", "name", "commit", "issue", "clone", "translation"]
Split = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together.

    Attributes:
        query: A text, or code in a pair of kind ``clone`` or ``translation``.
        positive: Code.
        kind: How the pair was found.
        language: Of the positive.
        repository: The package or repository that it comes from.
        path: Relative to the mined folder, with ``:line`` where there is one.
        negatives: Hard negatives: deviants of the positive.
    """

    query: str
    positive: str
    kind: Kind
    language: str
    repository: str
    path: str
    negatives: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """The pair as the trainer of :mod:`mmembed.gpte` reads it."""
        row: dict[str, Any] = {
            "query": self.query,
            "positive": self.positive,
            "kind": self.kind,
            "language": self.language,
            "repository": self.repository,
            "path": self.path,
            "split": split_of(self.repository),
        }
        return {**row, "negatives": list(self.negatives)} if self.negatives else row


def digest(text: str) -> int:
    """64-bit hash of a text, the same in every process."""
    raw = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(raw, "big")


def split_of(repository: str) -> Split:
    """Train, dev or test (80, 10 and 10 %) by a hash of the repository's name.

    A repository is in one split as a whole, so that no test pair has a neighbour in training.
    """
    place = digest(repository) % 10
    return "test" if place == 0 else "dev" if place == 1 else "train"

"""SCodeR's soft labels (Li et al., 2022): what a cross-encoder thinks of every candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmembed.errors import InputError

__all__ = ["Discriminator", "soft_labelled"]

Discriminator = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Relevance of pairs of texts, the higher the better:
:class:`mmembed.gpte.mining.CrossEncoder` is one."""


def soft_labelled(
    rows: Iterable[Mapping[str, Any]], discriminator: Discriminator
) -> Iterator[dict[str, Any]]:
    """Rows with ``teacher``: the scores of the positive, and then of each negative.

    The objectives ``kl`` and ``margin_mse`` of :mod:`mmembed.gpte` learn from that column.

    Raises:
        InputError: a row has no negatives, so that there is nothing to choose between.
    """
    for number, row in enumerate(rows):
        negatives = list(row.get("negatives", ()))
        if not negatives:
            raise InputError(f"row {number}", "has no negatives", "mine hard negatives first")
        texts = [row["positive"], *negatives]
        scores = discriminator([(row["query"], text) for text in texts])
        yield {**row, "teacher": [float(score) for score in scores]}

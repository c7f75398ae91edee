"""Batches of pairs of a query and a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmembed.errors import InputError
from mmembed.gpte.data.batches import Member
from mmembed.gpte.rows import Row
from mmembed.inputs.items import Item
from mmembed.multimodal.data.batches import MediaExamples
from mmembed.multimodal.data.rows import MediaExample, item_hash
from mmembed.rerankers.base import PairScorer

__all__ = ["PairExamples"]


class PairExamples(MediaExamples):
    """As :class:`MediaExamples`, where a row is a pair: the query with the positive, in the column
    ``query``, and with each hard negative, in ``negative``.

    Args:
        scorer: makes rows of pairs.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[MediaExample]],
        scorer: PairScorer,
        negatives: int = 0,
        *,
        skip: bool = False,
    ) -> None:
        # Of a backbone nothing but the media budget is asked here, which a scorer has too.
        super().__init__(sources, scorer, negatives, skip=skip)  # type: ignore[arg-type]
        self.scorer = scorer

    def rows_of(self, groups: Sequence[Sequence[Item]]) -> list[list[Row | InputError]]:
        """A row a pair of each group, the first item of which is the query."""
        decoded = iter(self.decoded([(item, at > 0) for g in groups for at, item in enumerate(g)]))
        made: list[list[Row | InputError]] = []
        for group in groups:
            query, *documents = (next(decoded) for _ in group)
            broken = next((x for x in (query, *documents) if isinstance(x, InputError)), None)
            if broken is not None:
                made.append([broken])
                continue
            instruction = query.instruction or self.scorer.instruction  # type: ignore[union-attr]
            asked: Any = replace(query, instruction=instruction)  # type: ignore[type-var]
            try:
                pairs: Any = [(asked, document) for document in documents]
                made.append([*self.scorer.prepare(pairs)])
            except InputError as error:
                made.append([error])
        return made

    def member(
        self, owner: int, example: MediaExample, items: Sequence[Item], rows: list[Any]
    ) -> Member:
        hashes = [item_hash(item) for item in items[1:]]
        teacher = self.teacher_of(example, items)
        return Member(owner, str(example.place), rows, hashes, False, example.label, teacher)

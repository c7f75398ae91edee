"""Text to image and image to text over held-out textbook figures.

The figures come from openly licensed OpenStax books, each with a long human description. The 400
test figures are fixed by the hash of their names (:mod:`mmembed.evaluation.splits`); no model
trained by this project has seen them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.evaluation.splits import Split
from mmembed.gpte.metrics import bootstrap_interval, mrr, recall

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["CUTOFFS", "Direction", "FiguresReport", "evaluate_figures", "retrieval_report"]

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Direction:
    """Retrieval in one direction.

    Attributes:
        recall: share of queries whose own counterpart ranks among the first k, by k.
        interval: 95 % bootstrap interval of each, over queries.
        mrr: mean reciprocal rank.
    """

    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    mrr: float


@dataclass(frozen=True, slots=True)
class FiguresReport:
    """What :func:`evaluate_figures` found.

    Attributes:
        candidates: number of figures, and so of candidates, in each direction.
        split: which split was measured.
        text_to_image: descriptions as queries.
        image_to_text: figures as queries.
    """

    candidates: int
    split: Split
    text_to_image: Direction
    image_to_text: Direction

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def evaluate_figures(model: Embedder, data: Path, split: Split = "test") -> FiguresReport:
    """Measure a model on the held-out figures.

    Args:
        model: anything that embeds text and images.
        data: the folder that holds ``openstax_figures``.
        split: ``"test"``, or ``"dev"`` to choose hyperparameters by.

    Raises:
        InputError: the figures are not there.
    """
    from mmembed.multimodal.captioned import read_captioned

    rows = [row for row in read_captioned("openstax_figures", data) if row.split == split]
    texts = model.encode_query([row.description for row in rows])
    images = model.encode_document([row.image for row in rows])
    return retrieval_report(texts, images, split)


def retrieval_report(texts: Any, images: Any, split: Split = "test") -> FiguresReport:
    """The report on vectors ``(n, d)`` whose rows belong together."""
    scores = np.asarray(texts, dtype=np.float32) @ np.asarray(images, dtype=np.float32).T
    return FiguresReport(len(scores), split, _direction(scores), _direction(scores.T))


def _direction(scores: np.ndarray[Any, np.dtype[np.float32]]) -> Direction:
    own = np.eye(len(scores), dtype=bool)
    hits = {k: recall(scores, own, k) for k in CUTOFFS}
    return Direction(
        recall={k: round(float(values.mean()), 4) for k, values in hits.items()},
        interval={
            k: tuple(round(end, 4) for end in bootstrap_interval(values))  # type: ignore[misc]
            for k, values in hits.items()
        },
        mrr=round(float(mrr(scores, own).mean()), 4),
    )

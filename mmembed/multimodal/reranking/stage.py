"""Training of a reranker as a kind of stage in recipes: ``kind: multimodal-rerank``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mmembed.errors import ConfigError
from mmembed.multimodal.stage import MediaTrainStage

__all__ = ["MediaRerankStage"]


@dataclass(frozen=True)
class MediaRerankStage(MediaTrainStage):
    """One run of the trainer over pairs of a query and a document of any modality.

    ``encoder.backbone`` is a model that :class:`mmembed.reranker.Reranker` loads: a vision-language
    model that answers yes or no, or two towers with a matching head. ``encoder.settings`` are
    fields of :class:`mmembed.rerankers.yes_no.YesNoSettings`. The objective is one of
    ``pair_binary``, ``pair_softmax`` and ``pair_kl``. Evaluation scores every query of a set
    against the best documents of its ``retriever``; without one against every document of the set,
    so give its source a ``limit``.
    """

    kind: ClassVar[str] = "multimodal-rerank"
    reranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.communities is not None or self.data.guide is not None or self.encoder.task:
            raise ConfigError(
                f"stage {self.name}: a reranker has no vectors: leave out communities, data.guide "
                "and encoder.task"
            )

    def tiny(self, folder: Path) -> MediaRerankStage:
        """The stage with a tiny random model, a few rows and a few steps."""
        from mmembed.backbones.vlm.tiny import TINY

        found = super().tiny(folder)
        assert isinstance(found, MediaRerankStage)
        settings = dict(found.encoder.settings)
        if found.encoder.family in TINY:  # whose words are bytes, and an answer is one token
            settings |= {"yes": "y", "no": "n"}
        return replace(found, encoder=replace(found.encoder, settings=settings))

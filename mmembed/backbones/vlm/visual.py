"""One image, page or clip as a vision-language model reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor

__all__ = ["Visual", "VisualKind"]

VisualKind: TypeAlias = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class Visual:
    """A preprocessed image, page or clip.

    Attributes:
        text: what stands for it in the prompt, with ONE placeholder token for each run of visual
            tokens, e.g. ``"<|image_pad|>"``.
        counts: visual tokens of each placeholder in ``text``, in order.
        tensors: what the vision tower reads, by the name of the model's input; the tensors of
            several visuals are joined along their first axis.
        kind: which wording of the prompt goes around it.
    """

    text: str
    counts: tuple[int, ...]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kind: VisualKind = "image"

    @property
    def tokens(self) -> int:
        """Visual tokens in all, markers between them not counted."""
        return sum(self.counts)

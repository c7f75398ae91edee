"""One image, page or clip as a vision-language model reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["Visual", "VisualKind", "grid_boxes"]

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
        boxes: ``(tokens, 4)`` float32: the part of the picture that each visual token was made
            of, as :func:`grid_boxes`; None where a family does not say.
    """

    text: str
    counts: tuple[int, ...]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kind: VisualKind = "image"
    boxes: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Visual tokens in all, markers between them not counted."""
        return sum(self.counts)


def grid_boxes(
    rows: int, columns: int, within: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
) -> Tensor:
    """``(rows * columns, 4)`` float32: the fields of a grid, row by row.

    Each is left, top, right and bottom, in fractions of the picture's width and height.

    Args:
        within: the box that the grid fills.
    """
    left, top, right, bottom = within
    x, y = torch.linspace(left, right, columns + 1), torch.linspace(top, bottom, rows + 1)
    corners = (
        torch.meshgrid(y[:-1], x[:-1], indexing="ij"),
        torch.meshgrid(y[1:], x[1:], indexing="ij"),
    )
    return torch.stack([side for y, x in corners for side in (x, y)], dim=-1).view(-1, 4)

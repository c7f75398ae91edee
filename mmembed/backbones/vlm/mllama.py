"""Llama 3.2 Vision (Meta 2024): text looks at image tiles through cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.vlm.model import VisionLanguage, VlmBatch
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Wording
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates, offsets_of

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Mllama"]

_TOKEN = "<|image|>"
_TILES = "num_tiles"


class Mllama(VisionLanguage):
    """Llama 3.2 Vision; one token stands for an image, and what follows it sees the image."""

    model_types: ClassVar[tuple[str, ...]] = ("mllama",)
    defaults: ClassVar = VlmSettings(
        wording=Wording(
            templates={"default": "{media}<|begin_of_text|>{instruction}{text}\n"}, between=""
        ),
        max_tokens=8192,
        max_frames=4,
        special_tokens=False,
    )
    packs: ClassVar = False
    #: Rows with images are read apart from those without, and cross-attention reads tiles: rows of
    #: different tasks cannot share a forward.
    by_rows: ClassVar[bool] = False

    @property
    def placeholders(self) -> Mapping[str, int]:
        return {_TOKEN: self.model.config.image_token_id}

    def image(self, image: PILImage) -> Visual:
        found = self.processor(images=[[image]], return_tensors="pt")
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        tensors = {name: found[name][0] for name in names}
        return Visual(_TOKEN, (1,), {**tensors, _TILES: torch.tensor([found[_TILES][0][0]])})

    def collate(self, rows: Sequence[Row]) -> MllamaBatch:  # type: ignore[override]
        """Rows with images apart from those without: in transformers a row without any attends to
        its neighbours' padding, and would not be what it is alone."""
        seeing = [i for i, row in enumerate(rows) if _TILES in row.extras]
        blind = [i for i, row in enumerate(rows) if _TILES not in row.extras]
        make = VisionLanguage.collate
        groups = [group for group in (seeing, blind) if group]
        return MllamaBatch([(group, make(self, [rows[i] for i in group])) for group in groups])

    def forward(self, batch: MllamaBatch) -> TokenStates:  # type: ignore[override]
        """As :meth:`VisionLanguage.forward`, in the rows' own order."""
        found = [(group, VisionLanguage.forward(self, part)) for group, part in batch.parts]
        if len(found) == 1:
            return found[0][1]
        return _in_order(found)

    def media_inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """``(n, images, ...)`` padded with images of no tiles, and who looks at what."""
        with_images = [row for row in rows if _TILES in row.extras]
        if not with_images:
            return {}
        most = max(len(row.extras[_TILES]) for row in with_images)
        longest = max(row.tokens for row in rows)
        sample = with_images[0].extras
        inputs: dict[str, Tensor] = {}
        for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"):
            inputs[name] = sample[name].new_zeros(len(rows), most, *sample[name].shape[1:])
            for i, row in enumerate(rows):
                if name in row.extras:
                    inputs[name][i, : len(row.extras[name])] = row.extras[name]
        tiles = sample["aspect_ratio_mask"].shape[1]
        seen = torch.zeros(len(rows), longest, most, tiles, dtype=torch.int64)
        for i, row in enumerate(rows):
            for image, (start, count) in enumerate(_looks(row)):
                seen[i, start : row.tokens, image, :count] = 1
        return {**inputs, "cross_attention_mask": seen}


@dataclass(slots=True)
class MllamaBatch:
    """Batches of some of the rows each, with those rows' numbers."""

    parts: list[tuple[list[int], VlmBatch]]

    def __len__(self) -> int:
        return sum(len(group) for group, _ in self.parts)


def _in_order(found: Sequence[tuple[list[int], TokenStates]]) -> TokenStates:
    """States of rows of several batches, back in their order."""
    numbers = [number for group, _ in found for number in group]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)

    def laid(tensors: Sequence[Tensor]) -> Tensor:
        rows = [
            row
            for tensor, (_, states) in zip(tensors, found, strict=True)
            for row in tensor.split(states.lengths.tolist())
        ]
        return torch.cat([rows[i] for i in order])

    lengths = torch.cat([states.lengths for _, states in found])[order]
    ids = [states.token_ids for _, states in found if states.token_ids is not None]
    return TokenStates(
        laid([states.hidden for _, states in found]),
        offsets_of(lengths),
        {name: laid([states.spans[name] for _, states in found]) for name in found[0][1].spans},
        laid(ids),
    )


def _looks(row: Row) -> list[tuple[int, int]]:
    """For each image where the tokens start that see it, and its tiles.

    All images stand before the words here, so every word sees all of them.
    """
    if _TILES not in row.extras:
        return []
    starts = [start for start, _ in row.spans["visual"]]
    return list(zip(starts, row.extras[_TILES].tolist(), strict=True))

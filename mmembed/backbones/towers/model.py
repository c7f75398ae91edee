"""What all two-tower backbones share: parts of an item, batches, and the mean of their vectors.

A library's model says how a text and a picture become vectors; it is one small file beside this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.backbones.base import MediaBudget
from mmembed.errors import InputError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates, offsets_of
from mmembed.inputs.decoded import DecodedItem, Frames, Page
from mmembed.inputs.items import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["TowerBatch", "TowerSettings", "TwoTowers"]


@dataclass(frozen=True, slots=True)
class TowerSettings:
    """What a two-tower encoder is besides its weights and its processor.

    Attributes:
        instructions: words ahead of a text, by role.
        max_tokens: tokens of one text; longer text is cut. None takes all that the model can read.
        unit_parts: an item of several parts is the mean of their unit vectors, so that each counts
            the same; otherwise of the vectors as they come out of the towers.
        max_frames: frames sampled from a clip.
        fps: frames a second to sample, capped by ``max_frames``; None spreads them evenly.
        page_dpi: resolution at which pages are rendered before they are resized.
        page_text: also read the text layer of a page.
    """

    instructions: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int | None = None
    unit_parts: bool = True
    max_frames: int = 8
    fps: float | None = None
    page_dpi: int = 144
    page_text: bool = False


@dataclass(slots=True)
class TowerBatch:
    """The texts and the pictures of ``n`` items, apart.

    Attributes:
        ids: ``(texts, length)`` int64, padded.
        mask: ``(texts, length)`` bool, True on real tokens.
        media: inputs of the vision tower by the model's own names, one picture a row.
        frame_parts: ``(pictures,)`` int64, the part that each picture is, or is a frame of.
        part_rows: ``(texts + parts,)`` int64, the item of each text, then of each part.
        rows: number of items.
    """

    ids: Tensor
    mask: Tensor
    media: dict[str, Tensor]
    frame_parts: Tensor
    part_rows: Tensor
    rows: int

    def __len__(self) -> int:
        return self.rows


class TwoTowers(nn.Module):
    """Base of the families: a :class:`mmembed.backbones.base.Backbone` with vectors of its own.

    The vector of an item is the mean of its parts' vectors, a part being its words, one picture or
    page, or a clip, which is the mean of its frames (as CLIP4Clip's parameter-free head, Luo et
    al. 2021). Where a tower gives a picture several vectors (BLIP-2), they are the multi-vector
    output, and their mean is the picture's dense vector.
    """

    #: Words as pictures get a vector each, and no token of the two stands beside the other's: rows
    #: of different tasks cannot share a batch.
    by_rows: ClassVar[bool] = False
    #: Every text is padded to ``max_tokens``, and the model sees it.
    fixed_length: ClassVar[bool] = False
    #: Vectors of one picture.
    queries: int = 1

    def __init__(self, settings: TowerSettings) -> None:
        super().__init__()
        self.settings = settings

    # --- what a library's model says --------------------------------------------------------

    @property
    def hidden_size(self) -> int:
        raise NotImplementedError

    @property
    def max_tokens(self) -> int:
        raise NotImplementedError

    @property
    def lora_targets(self) -> str:
        raise NotImplementedError

    @property
    def picture_tokens(self) -> int:
        """Patches of one picture, which is what it costs."""
        raise NotImplementedError

    @property
    def pad_id(self) -> int:
        """Token that fills a batch up."""
        raise NotImplementedError

    @property
    def pads_left(self) -> bool:
        """Whether it stands before the text."""
        return False

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise NotImplementedError

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special ones included, cut to ``max_tokens``; thread-safe."""
        raise NotImplementedError

    def pixels(self, images: Sequence[PILImage]) -> dict[str, Tensor]:
        """Preprocess RGB pictures, one along the first axis each; thread-safe."""
        raise NotImplementedError

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``(texts, d)``, not normalised."""
        raise NotImplementedError

    def image_vectors(self, media: Mapping[str, Tensor]) -> Tensor:
        """``(pictures, queries, d)``, not normalised."""
        raise NotImplementedError

    def save_pretrained(self, folder: str) -> None:
        raise NotImplementedError

    # --- the backbone contract --------------------------------------------------------------

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset({"text", "image", "video", "document"})

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("dense", "multi") if self.queries > 1 else ("dense",)

    @property
    def media_budget(self) -> MediaBudget:
        return MediaBudget(
            page_dpi=self.settings.page_dpi,
            max_frames=self.settings.max_frames,
            fps=self.settings.fps,
        )

    @property
    def scale(self) -> Mapping[str, Tensor]:
        """The logarithm of the scale of cosines in the model's own loss, and its bias."""
        model = getattr(self, "model", None)
        names = {"log_scale": "logit_scale", "bias": "logit_bias"}
        found = {ours: getattr(model, own, None) for ours, own in names.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def prompts(self) -> Mapping[str, str]:
        return dict(self.settings.instructions)

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        """Token ids and pixels of each item, on the CPU; thread-safe.

        Raises:
            InputError: a picture has a shape that the model cannot take; ``position`` says whose.
        """
        texts = [self._words(item) for item in items]
        wanted = [i for i, text in enumerate(texts) if text is not None]
        ids = dict(zip(wanted, self.token_ids([texts[i] or "" for i in wanted]), strict=True))
        rows = []
        for position, item in enumerate(items):
            pictures, parts = self._pictures(item)
            extras: dict[str, Tensor] = {}
            if pictures:
                try:
                    extras = self.pixels(pictures)
                except ValueError as error:
                    hint = "crop or resize it"
                    raise InputError(item.label, str(error), hint).at(position) from None
                extras[_PARTS] = torch.tensor(parts)
            found = ids.get(position, [])
            width = self.max_tokens if self.fixed_length and found else len(found)
            rows.append(Row(found, width + len(pictures) * self.picture_tokens, extras))
        return rows

    def collate(self, rows: Sequence[Row]) -> TowerBatch:
        first = next(self.parameters())
        texts = [(i, row.input_ids) for i, row in enumerate(rows) if row.input_ids]
        width = max((len(ids) for _, ids in texts), default=0)
        if self.fixed_length and texts:
            width = self.max_tokens
        ids = torch.full((len(texts), width), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for place, (_, found) in enumerate(texts):
            where = slice(width - len(found), width) if self.pads_left else slice(0, len(found))
            ids[place, where] = torch.tensor(found, dtype=torch.int64)
            mask[place, where] = True
        part_rows = [i for i, _ in texts]
        frame_parts: list[int] = []
        for i, row in enumerate(rows):
            if _PARTS in row.extras:
                parts = row.extras[_PARTS].tolist()
                start = len(part_rows) - len(texts)
                frame_parts += [start + part for part in parts]
                part_rows += [i] * (parts[-1] + 1)
        pictured = [row.extras for row in rows if _PARTS in row.extras]
        media = {
            name: torch.cat([extras[name] for extras in pictured])
            for name in (pictured[0] if pictured else ())
            if name != _PARTS
        }
        return TowerBatch(
            ids=ids.to(first.device),
            mask=mask.to(first.device),
            media={
                name: tensor.to(first.device, first.dtype if tensor.is_floating_point() else None)
                for name, tensor in media.items()
            },
            frame_parts=torch.tensor(frame_parts, dtype=torch.int64, device=first.device),
            part_rows=torch.tensor(part_rows, dtype=torch.int64, device=first.device),
            rows=len(rows),
        )

    def forward(self, batch: TowerBatch) -> TokenStates:
        """One state a row: its dense vector."""
        dense = self.embed(batch).dense
        assert dense is not None
        return TokenStates(dense, offsets_of([1] * len(batch)).to(dense.device))

    def embed(self, batch: TowerBatch) -> Outputs:
        """The vectors of a batch's items, computed and averaged in float32.

        Returns:
            ``dense (n, d)``, and where a picture has several vectors ``multi (n, t, d)``.
        """
        texts = self._texts(batch)
        pictures = self._pictures_of(batch)
        dense = self._dense(batch, texts, pictures)
        if self.queries == 1:
            return Outputs(dense=dense)
        multi, mask = self._multi(batch, texts, pictures)
        return Outputs(dense=dense, multi=multi, multi_mask=mask)

    def _texts(self, batch: TowerBatch) -> Tensor:
        if len(batch.ids):
            return self.text_vectors(batch.ids, batch.mask).float()
        return torch.zeros(0, self.hidden_size, device=batch.ids.device)

    def _pictures_of(self, batch: TowerBatch) -> Tensor:
        if batch.media:
            return self.image_vectors(batch.media).float()
        return torch.zeros(0, self.queries, self.hidden_size, device=batch.ids.device)

    def _dense(self, batch: TowerBatch, texts: Tensor, pictures: Tensor) -> Tensor:
        parts = len(batch.part_rows) - len(texts)
        seen = self._unit(
            F.normalize(pictures, dim=-1).mean(1) if self.queries > 1 else pictures[:, 0]
        )
        shown = self._unit(_means(seen, batch.frame_parts, parts))
        return _means(torch.cat([self._unit(texts), shown]), batch.part_rows, batch.rows)

    def _unit(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.settings.unit_parts else vectors

    def _multi(self, batch: TowerBatch, texts: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Every vector of an item on its own: one of its words, ``queries`` of each picture."""
        owners = batch.part_rows[len(texts) :][batch.frame_parts]
        rows = torch.cat([batch.part_rows[: len(texts)], owners.repeat_interleave(self.queries)])
        vectors = F.normalize(torch.cat([texts, pictures.flatten(0, 1)]), dim=-1)
        order = rows.argsort(stable=True)
        counts = torch.bincount(rows, minlength=batch.rows)
        mask = torch.arange(int(counts.max()), device=rows.device) < counts.unsqueeze(1)
        multi = vectors.new_zeros(*mask.shape, self.hidden_size)
        return multi.masked_scatter(mask.unsqueeze(-1), vectors[order]), mask

    def _words(self, item: DecodedItem) -> str | None:
        """All that is to be read of an item as one text; None where there are pictures alone."""
        words = [item.instruction] if item.instruction else []
        for part in item.parts:
            if isinstance(part, str):
                words.append(part)
            elif isinstance(part, Page) and self.settings.page_text:
                words.append(part.text)
        text = " ".join(word.strip() for word in words if word.strip())
        pictured = any(not isinstance(part, str) for part in item.parts)
        return None if pictured and not text else text

    @staticmethod
    def _pictures(item: DecodedItem) -> tuple[list[PILImage], list[int]]:
        """The pictures of an item, and the part that each belongs to."""
        from PIL import Image

        from mmembed.backbones.vlm.clips import distinct

        pictures: list[PILImage] = []
        parts: list[int] = []
        for part in item.parts:
            if isinstance(part, str):
                continue
            number = parts[-1] + 1 if parts else 0
            if isinstance(part, Frames):
                frames = [Image.fromarray(frame) for frame in distinct(part)]
            else:
                frames = [part.image if isinstance(part, Page) else part]
            pictures += frames
            parts += [number] * len(frames)
        return pictures, parts


_PARTS = "parts"


def _means(vectors: Tensor, groups: Tensor, count: int) -> Tensor:
    """``(count, d)``: the mean of the vectors of each group."""
    sums = vectors.new_zeros(count, vectors.shape[-1]).index_add(0, groups, vectors)
    sizes = torch.bincount(groups, minlength=count).clamp(min=1)
    return sums / sizes.unsqueeze(1)

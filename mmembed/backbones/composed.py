"""A vision-language encoder composed of any vision tower, a connector and any text encoder.

The text encoder reads one sequence: its own special tokens around the item's parts in their order,
words as word embeddings and images as the connector's visual tokens. With words alone it computes
exactly what it computes by itself.

Position ids count words; all visual tokens of one image share a single one, and where a token lies
inside its image is the connector's to say. A clip of eight frames therefore fits a text encoder
that has positions for 512 words, frames follow each other in time, and the words beside an image
stand where they would stand beside one more word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmembed.backbones.base import MediaBudget
from mmembed.backbones.connector import Connector
from mmembed.backbones.sequence import SequenceBuilder
from mmembed.backbones.vision import VisionTower
from mmembed.errors import ConfigError
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.packed import Layout, packed_forward, packing_of
from mmembed.gpte.rows import Row, span_mask
from mmembed.gpte.states import TokenStates, offsets_of
from mmembed.inputs.decoded import DecodedItem
from mmembed.inputs.items import Modality

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["ComposedBatch", "ComposedSettings", "ComposedVLM"]


@dataclass(frozen=True, slots=True)
class ComposedSettings:
    """What a composed model has besides its parts.

    Attributes:
        max_tokens: words of one item, in tokens, special ones included; longer text is cut.
        max_images: images, frames and page tiles of one item together; more is an error.
        max_frames: frames sampled from a clip.
        page_tiles: at most so many tiles of a page without a text layer, beside the whole page.
        page_dpi: resolution at which pages are rendered.
        beside_words: visual tokens that the images of one item share where it has words too, so
            that a few words are not drowned; 0 for as many as without words.
    """

    max_tokens: int = 256
    max_images: int = 32
    max_frames: int = 8
    page_tiles: int = 6
    page_dpi: int = 110
    beside_words: int = 0


@dataclass(slots=True)
class ComposedBatch:
    """Rows joined along one token axis.

    Attributes:
        ids: ``(tokens,)`` int64; placeholders at visual tokens.
        positions: ``(tokens,)`` int64, from 0.
        lengths: tokens of each row, on the host.
        spans: ``"visual"`` and ``"instruction"``, ``(tokens,)`` bool.
        pixels: ``(images, side, side, 3)`` uint8 in the order of their tokens; None without any.
        image_tokens: visual tokens of each image, on the host.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    spans: dict[str, Tensor]
    pixels: Tensor | None = None
    image_tokens: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lengths)


class ComposedVLM(nn.Module):
    """Vision tower, connector and text encoder as one backbone.

    Args:
        vision: the vision tower.
        connector: from its features to word embeddings of the text encoder.
        text: a base model of transformers, without head, that takes ``inputs_embeds``.
        tokenizer: the text encoder's fast tokenizer.
        settings: limits on text and media.

    Raises:
        ConfigError: the text model cannot be run packed, see
            :func:`mmembed.gpte.packed.packing_of`.
    """

    def __init__(
        self,
        vision: VisionTower,
        connector: Connector,
        text: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: ComposedSettings | None = None,
    ) -> None:
        super().__init__()
        packing = packing_of(text)
        if packing is None:
            raise ConfigError(
                f"{type(text).__name__} cannot be run packed, so it cannot read visual tokens: "
                "take a text encoder whose attention has no relative position bias"
            )
        self.vision = vision
        self.connector = connector
        self.text = use_onednn(text)
        self.tokenizer = tokenizer
        self.settings = settings or ComposedSettings()
        self._packing = packing
        self._sequences = SequenceBuilder(
            tokenizer, vision.pixels, connector.tokens, connector.shape.groups, self.settings
        )

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset({"text", "image", "video", "document"})

    @property
    def hidden_size(self) -> int:
        return int(self.text.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        return self.settings.max_tokens

    @property
    def media_budget(self) -> MediaBudget:
        return MediaBudget(page_dpi=self.settings.page_dpi, max_frames=self.settings.max_frames)

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the text encoder's blocks."""
        names = "query|key|value|dense|Wqkv|Wo|Wi|[qkvo]_proj|out_proj|fc[12]|(gate|up|down)_proj"
        return rf"text\..*\.({names})"

    @property
    def prompts(self) -> Mapping[str, str]:
        return {}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        return self._sequences.count_tokens(texts)

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        """Pixels and token ids of each item, on the CPU; thread-safe.

        ``extras["pixels"]`` is ``(images, side, side, 3)`` uint8. Spans are ``"visual"``, a range
        an image, and ``"instruction"``.

        Raises:
            InputError: an instruction leaves no room for text, or an item brings too many images;
                ``position`` is its index.
        """
        return self._sequences.rows(items)

    def collate(self, rows: Sequence[Row]) -> ComposedBatch:
        device = self.text.device
        ids = torch.tensor([i for row in rows for i in row.input_ids], dtype=torch.int64)
        spans = {name: span_mask(rows, name) for name in ("instruction", "visual")}
        pixels = [row.extras["pixels"] for row in rows if "pixels" in row.extras]
        return ComposedBatch(
            ids=ids.to(device),
            positions=torch.cat([_positions(row) for row in rows]).to(device),
            lengths=[row.tokens for row in rows],
            spans={name: mask.to(device) for name, mask in spans.items()},
            pixels=torch.cat(pixels).to(device) if pixels else None,
            image_tokens=[b - a for row in rows for a, b in row.spans.get("visual", ())],
        )

    def forward(self, batch: ComposedBatch) -> TokenStates:
        return self._read(batch, self.visual_tokens(batch))

    def _read(self, batch: ComposedBatch, visual: Tensor | None) -> TokenStates:
        embeds = self.text.get_input_embeddings()(batch.ids)
        if visual is not None:
            where = batch.spans["visual"].nonzero().squeeze(1)
            # The connector writes in rounds, so the first tokens of an image hold all of it.
            read = zip(visual, batch.image_tokens, strict=True)
            written = torch.cat([tokens[:count] for tokens, count in read])
            embeds = embeds.index_copy(0, where, written.to(embeds.dtype))
        layout = Layout(batch.lengths, placed=batch.positions)
        hidden = packed_forward(self.text, layout, self._packing, inputs_embeds=embeds)
        offsets = offsets_of(batch.lengths).to(hidden.device)
        return TokenStates(hidden, offsets, batch.spans, batch.ids)

    def visual_tokens(self, batch: ComposedBatch) -> Tensor | None:
        """``(images, tokens, hidden_size)`` in the space of word embeddings; None without media."""
        if batch.pixels is None:
            return None
        visual: Tensor = self.connector(self.vision(batch.pixels))
        return visual

    def read_visual(self, visual: Tensor) -> TokenStates:
        """Rows of one image each, whose visual tokens ``(n, t, hidden_size)`` are known.

        Training reads images this way: from cached features, and with fewer tokens than an image
        has.
        """
        row = self._sequences.image_row(visual.shape[1])
        batch = self.collate([row] * len(visual))
        return self._read(batch, visual)

    def save_pretrained(self, folder: str) -> None:
        """Write a folder that stands alone; see :mod:`mmembed.backbones.composed_loading`."""
        from mmembed.backbones.composed_loading import save_composed

        save_composed(self, Path(folder))


def _positions(row: Row) -> Tensor:
    """``(tokens,)`` int64: one position a word, one position an image."""
    steps = torch.ones(row.tokens, dtype=torch.int64)
    for first, stop in row.spans.get("visual", ()):
        steps[first + 1 : stop] = 0
    return steps.cumsum(0) - 1

"""What all vision-language backbones share: prompt, batch, forward, save.

A family says how an image and a clip become visual tokens, where tokens stand, and which layers
LoRA adapts; it is one small file beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.backbones.base import MediaBudget
from mmembed.backbones.vlm.buckets import bucket_of
from mmembed.backbones.vlm.checkpoint import CheckpointLayout
from mmembed.backbones.vlm.clips import distinct, joined, thinned
from mmembed.backbones.vlm.layout import PromptLayout
from mmembed.backbones.vlm.settings import SETTINGS_NAME, VlmSettings
from mmembed.backbones.vlm.visual import Visual
from mmembed.backbones.vlm.wording import Segment
from mmembed.errors import InputError
from mmembed.gpte.lora import merged_state_dict
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.packed import Layout, use_packed_attention
from mmembed.gpte.rows import Row, span_mask
from mmembed.gpte.states import TokenStates, offsets_of
from mmembed.gpte.text_loading import quiet_transformers
from mmembed.inputs.decoded import DecodedItem, Frames, Page
from mmembed.inputs.items import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["VisionLanguage", "VlmBatch"]


@dataclass(slots=True)
class VlmBatch:
    """Rows joined along one token axis.

    Attributes:
        ids: ``(tokens,)`` int64.
        positions: ``(tokens,)`` int64, or ``(3, tokens)`` where a family counts time, height and
            width apart (mRoPE).
        lengths: tokens of each row, on the host.
        spans: ``(tokens,)`` bool masks by name.
        media: inputs of the vision tower by the model's own names; empty without any.
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    spans: dict[str, Tensor]
    media: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self) -> tuple[Tensor, Tensor]:
        """``(n, length)`` int64 indices into the token axis and bool mask, padded on the right."""
        steps = torch.arange(max(self.lengths), device=self.ids.device)
        offsets = offsets_of(self.lengths).to(self.ids.device)
        mask = steps < offsets.diff().unsqueeze(1)
        return (offsets[:-1].unsqueeze(1) + steps) * mask, mask


class VisionLanguage(nn.Module):
    """Base of the families: a :class:`mmembed.backbones.base.Backbone` over a transformers model.

    Args:
        model: base model, without a language-model head.
        tokenizer: its fast tokenizer.
        processor: its image processor.
        settings: prompt and limits.
    """

    #: ``model_type`` of the configs this family reads.
    model_types: ClassVar[tuple[str, ...]] = ()
    #: Settings of a plain checkpoint of the family, where neither it nor a preset says otherwise.
    defaults: ClassVar[VlmSettings] = VlmSettings()
    #: How the family's own folders differ from those of transformers.
    layout: ClassVar[CheckpointLayout] = CheckpointLayout()
    #: Rows run one after another without padding; otherwise padded, for attention that cannot.
    packs: ClassVar[bool] = True
    #: The blocks are compiled, and batches filled up to few lengths.
    compiled: bool = False
    reads: ClassVar[frozenset[Modality]] = frozenset({"text", "image", "video", "document"})

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        processor: Any,
        settings: VlmSettings | None = None,
    ) -> None:
        super().__init__()
        self.model = use_onednn(model)
        self.tokenizer = tokenizer
        self.processor = processor
        self.settings = settings or self.defaults
        self._layout = PromptLayout(
            tokenizer,
            self.placeholders,
            self.settings.max_tokens,
            special_tokens=self.settings.special_tokens,
        )
        if self.packs:
            use_packed_attention(self.language_model)

    # --- what a family says -----------------------------------------------------------------

    @classmethod
    def load_processor(cls, folder: Path) -> Any:
        """The image processor of a checkpoint."""
        from transformers import AutoImageProcessor

        # One backend everywhere: vectors must not change with an unrelated installation.
        return AutoImageProcessor.from_pretrained(folder, backend="pil")

    @classmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerFast:
        """The tokenizer of a checkpoint."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
        return tokenizer

    @classmethod
    def described(
        cls, config: dict[str, Any], folder: Path, tokenizer: PreTrainedTokenizerFast
    ) -> dict[str, Any]:
        """The configuration of the transformers model that a folder's own describes."""
        return config

    @property
    def placeholders(self) -> Mapping[str, int]:
        """The placeholder token of an image and of a clip, as text, with their ids."""
        raise NotImplementedError

    def image(self, image: PILImage) -> Visual:
        """Preprocess one RGB image.

        Raises:
            ValueError: the image has a shape that the model cannot take.
        """
        raise NotImplementedError

    def video(self, frames: Frames) -> Visual:
        """Preprocess one clip; by default its frames are so many images."""
        from PIL import Image

        images = [self.image(Image.fromarray(frame)) for frame in distinct(frames)]
        return joined(images)

    def placed(self, row: Row, media: Mapping[str, Tensor]) -> Tensor:
        """Positions of a row's tokens: ``(tokens,)``, or ``(3, tokens)`` int64."""
        return torch.arange(row.tokens)

    @property
    def language_model(self) -> PreTrainedModel:
        """The part that reads the joined sequence."""
        found: PreTrainedModel = self.model.language_model
        return found

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the language model's blocks, and nothing of the vision tower."""
        return r"model\.language_model\..*\.([qkvo]_proj|(gate|up|down)_proj)"

    def images(self, images: Sequence[PILImage]) -> list[Visual]:
        """Preprocess the images of one item, for families where each depends on their number."""
        return [self.image(image) for image in images]

    def media_inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """What the vision tower reads for these rows, joined along the first axis."""
        names = dict.fromkeys(name for row in rows for name in row.extras if name != _POSITIONS)
        return {
            name: torch.cat([row.extras[name] for row in rows if name in row.extras])
            for name in names
        }

    def media_arguments(self, media: Mapping[str, Tensor]) -> dict[str, Any]:
        """The media of a batch as the model's forward takes them."""
        return dict(media)

    # --- the backbone contract --------------------------------------------------------------

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.reads

    @property
    def hidden_size(self) -> int:
        return int(self.language_model.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        return self.settings.max_tokens

    @property
    def media_budget(self) -> MediaBudget:
        return MediaBudget(
            page_dpi=self.settings.page_dpi,
            max_frames=self.settings.max_frames,
            fps=self.settings.fps,
        )

    @property
    def prompts(self) -> Mapping[str, str]:
        return dict(self.settings.instructions)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the tokenizer's special ones included, before any cut."""
        return self._layout.count_tokens(texts)

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        """Token ids, positions and pixels of each item, on the CPU; thread-safe.

        Raises:
            InputError: media and template do not fit ``max_tokens``, or a picture has a shape that
                the model cannot take; ``position`` is the item's index.
        """
        prompts = [
            self.settings.wording.segments(parts, instruction=item.instruction, role=item.role)
            for item, parts in zip(items, self.preprocess(items), strict=True)
        ]
        return self.rows(prompts, [item.label for item in items])

    def preprocess(self, items: Sequence[DecodedItem]) -> list[list[str | Visual]]:
        """The parts of each item, pixels ready for the vision tower.

        Raises:
            InputError: a picture has a shape that the model cannot take; ``position`` says whose.
        """
        found = []
        for position, item in enumerate(items):
            try:
                found.append(self._parts(item))
            except ValueError as error:
                hint = "crop or resize it"
                raise InputError(item.label, str(error), hint).at(position) from None
        return found

    def rows(self, prompts: Sequence[Sequence[Segment]], labels: Sequence[str]) -> list[Row]:
        """One row a prompt, with pixels and positions.

        Raises:
            InputError: media and template do not fit; ``position`` is the prompt's index.
        """
        rows = self._layout.rows(prompts, labels)
        for row, prompt in zip(rows, prompts, strict=True):
            media = _media_of(prompt)
            row.extras = {**media, _POSITIONS: self.placed(row, media)}
            visuals = [segment.visual for segment in prompt if segment.visual is not None]
            if len(visuals) == 1:
                row.boxes = visuals[0].boxes
        return rows

    def collate(self, rows: Sequence[Row]) -> VlmBatch:
        device, dtype = self.model.device, self.model.dtype
        ids = torch.tensor([i for row in rows for i in row.input_ids], dtype=torch.int64)
        media = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in self.media_inputs(rows).items()
        }
        spans = {
            name: span_mask(rows, name).to(device) for name in ("instruction", "media", "visual")
        }
        return VlmBatch(
            ids=ids.to(device),
            positions=torch.cat([row.extras[_POSITIONS] for row in rows], dim=-1).to(device),
            lengths=[row.tokens for row in rows],
            spans=spans,
            media=media,
        )

    def forward(self, batch: VlmBatch) -> TokenStates:
        """States after the language model's final norm; no logits and no key-value cache."""
        hidden = self._packed(batch) if self.packs else self._padded(batch)
        offsets = offsets_of(batch.lengths).to(hidden.device)
        return TokenStates(hidden, offsets, batch.spans, batch.ids)

    def _packed(self, batch: VlmBatch) -> Tensor:
        tokens = len(batch.ids)
        spare = bucket_of(tokens) - tokens if self.compiled else 0
        ids = F.pad(batch.ids, (0, spare), value=self._pad_id)
        positions = F.pad(batch.positions, (0, spare))
        no_mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=ids.device)
        output = self.model(
            input_ids=ids.unsqueeze(0),
            # A 4-D mask is taken as final by transformers: packed attention needs none.
            attention_mask=no_mask,
            position_ids=positions.unsqueeze(-2),
            layout=Layout([*batch.lengths, spare]),
            use_cache=False,
            **self.media_arguments(batch.media),
        )
        hidden: Tensor = output.last_hidden_state[0, :tokens]
        return hidden

    def _padded(self, batch: VlmBatch) -> Tensor:
        where, mask = batch.padded()
        output = self.model(
            input_ids=batch.ids[where].masked_fill(~mask, self._pad_id),
            attention_mask=mask.long(),
            position_ids=batch.positions[..., where],
            use_cache=False,
            **self.padded_inputs(batch, where, mask),
            **self.media_arguments(batch.media),
        )
        hidden: Tensor = output.last_hidden_state[mask]
        return hidden

    @property
    def _pad_id(self) -> int:
        """Any token that stands for no medium."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def padded_inputs(self, batch: VlmBatch, where: Tensor, mask: Tensor) -> dict[str, Any]:
        """More inputs that the model's own padded forward needs."""
        return {}

    def save_pretrained(self, folder: str) -> None:
        """Write weights, tokenizer, image processor and settings: the folder stands alone."""
        target = Path(folder)
        with quiet_transformers():
            self.model.save_pretrained(target, state_dict=merged_state_dict(self.model))
        self.tokenizer.save_pretrained(target)
        if self.processor is not None:
            self.processor.save_pretrained(target)
        text = json.dumps(asdict(self.settings), indent=2, ensure_ascii=False) + "\n"
        (target / SETTINGS_NAME).write_text(text, encoding="utf-8")

    def with_settings(self, **changes: Any) -> VisionLanguage:
        """The same model under other settings; the weights are shared."""
        return type(self)(
            self.model, self.tokenizer, self.processor, replace(self.settings, **changes)
        )

    def _parts(self, item: DecodedItem) -> list[str | Visual]:
        pictures: list[PILImage] = []
        for part in item.parts:
            if isinstance(part, Page):
                pictures.append(part.image)
            elif not isinstance(part, (str, Frames)):
                pictures.append(part)
        if side := self.settings.image_size:
            pictures = [picture.resize((side, side)) for picture in pictures]
        seen = iter(self.images(pictures) if pictures else [])
        parts: list[str | Visual] = []
        for part in item.parts:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Frames):
                parts.append(self._clip(part))
            else:
                parts.append(next(seen))
                if isinstance(part, Page) and self.settings.page_text and part.text.strip():
                    parts.append(part.text)
        return parts

    def _clip(self, frames: Frames) -> Visual:
        """A clip within ``max_clip_tokens``, with fewer frames where they cannot be smaller."""
        visual, count = self.video(frames), len(distinct(frames))
        limit = self.settings.max_clip_tokens
        while limit is not None and visual.tokens > limit and count > 1:
            count = max(1, min(count - 1, count * limit // visual.tokens))
            visual = self.video(thinned(frames, count))
        return visual


_POSITIONS = "positions"


def _media_of(prompt: Sequence[Segment]) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    for segment in prompt:
        if segment.visual is not None:
            for name, tensor in segment.visual.tensors.items():
                found.setdefault(name, []).append(tensor)
    return {
        name: tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        for name, tensors in found.items()
    }

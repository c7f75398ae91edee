"""Two towers of transformers: tokenizer, image processor, strict loading and saving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mmembed.backbones.towers.model import TowerSettings, TwoTowers
from mmembed.gpte.lora import merged_state_dict
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.text_loading import quiet_transformers

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SETTINGS_NAME", "TransformersTowers"]

SETTINGS_NAME = "towers.json"


class TransformersTowers(TwoTowers):
    """Base of the families that transformers ships.

    Args:
        model: the two-tower model of the family's class.
        tokenizer: its tokenizer.
        processor: its image processor.
        settings: prompts and limits.
    """

    #: ``model_type`` of the configs this family reads.
    model_types: ClassVar[tuple[str, ...]] = ()
    #: Name of the transformers class with both towers.
    architecture: ClassVar[str] = ""
    defaults: ClassVar[TowerSettings] = TowerSettings()
    #: Beginnings of names of tensors that a checkpoint may carry and an encoder does not need.
    left_out: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        settings: TowerSettings | None = None,
    ) -> None:
        super().__init__(settings or self.defaults)
        self.model = use_onednn(model)
        self.tokenizer = tokenizer
        self.processor = processor
        self._cut, self._whole = _readers(tokenizer, self.max_tokens)

    @property
    def text_limit(self) -> int:
        """Positions of the text tower."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def max_tokens(self) -> int:
        return min(self.settings.max_tokens or self.text_limit, self.text_limit)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.projection_dim)

    @property
    def picture_tokens(self) -> int:
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    @property
    def pads_left(self) -> bool:
        return bool(self.fixed_length and self.tokenizer.padding_side == "left")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        return [len(ids) for ids in self._whole(texts)]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._cut(texts)

    def pixels(self, images: Sequence[PILImage]) -> dict[str, Tensor]:
        return dict(self.processor(images=list(images), return_tensors="pt"))

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        seen = {} if self.fixed_length else {"attention_mask": mask.long()}
        found: Tensor = self.model.get_text_features(input_ids=ids, **seen).pooler_output
        return found

    def image_vectors(self, media: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model.get_image_features(**media).pooler_output
        return found.unsqueeze(1)

    def save_pretrained(self, folder: str) -> None:
        """Write weights, tokenizer, image processor and settings: the folder stands alone."""
        target = Path(folder)
        with quiet_transformers():
            self.model.save_pretrained(target, state_dict=merged_state_dict(self.model))
        self.tokenizer.save_pretrained(target)
        self.processor.save_pretrained(target)
        text = json.dumps(asdict(self.settings), indent=2, ensure_ascii=False) + "\n"
        (target / SETTINGS_NAME).write_text(text, encoding="utf-8")


def _readers(tokenizer: PreTrainedTokenizerBase, limit: int) -> tuple[Any, Any]:
    """From texts to ids, cut and whole.

    A fast tokenizer keeps its limit as state, which threads would share: each of the two is a copy.
    """
    if not tokenizer.is_fast:

        def slow(texts: Sequence[str], **cut: Any) -> list[list[int]]:
            found: list[list[int]] = tokenizer(list(texts), **cut)["input_ids"] if texts else []
            return found

        return (lambda texts: slow(texts, truncation=True, max_length=limit)), slow

    from tokenizers import Tokenizer

    copies = []
    for cut in (True, False):
        backend: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        if cut:
            backend.enable_truncation(limit)
        copies.append(backend)

    def reader(backend: Any) -> Any:
        return lambda texts: [found.ids for found in backend.encode_batch(list(texts))]

    return reader(copies[0]), reader(copies[1])

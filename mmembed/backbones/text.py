"""Text encoders of transformers and sentence-transformers as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmembed.backbones.base import MediaBudget
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.prompts import Prompt
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.inputs.decoded import DecodedItem
from mmembed.inputs.items import Modality

__all__ = ["TextBackbone"]


class TextBackbone(nn.Module):
    """A :class:`mmembed.gpte.text_encoder.TextEncoder` that reads the text of items.

    The encoder pools by itself, so each row has a single state: its vector.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def tokenizer(self) -> Any:
        """The encoder's fast tokenizer."""
        return self.encoder.tokenizer

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset({"text"})

    @property
    def hidden_size(self) -> int:
        return self.encoder.dim

    @property
    def max_tokens(self) -> int:
        return self.encoder.max_tokens

    @property
    def media_budget(self) -> MediaBudget:
        return MediaBudget()

    @property
    def lora_targets(self) -> str:
        """Every linear layer of the model's numbered blocks, by the names that families use."""
        names = (
            "query|key|value|dense|[qkvo]|[qkvo]_proj|out_proj|(query|key|value)_proj|qkv_proj",
            "Wqkv|Wo|Wi|fc[12]|(gate|up|down|gate_up)_proj|w[io](_[01])?|[qkv]_lin|out_lin|lin[12]",
            "query_key_value|dense_h_to_4h|dense_4h_to_h|c_(attn|fc|proj)|ffn_output",
        )
        return rf"encoder\.full\.(.*\.)?\d+\.(.*\.)?({'|'.join(names)})"

    @property
    def prompts(self) -> Mapping[str, str]:
        """What the encoder puts before a text, by role; ``""`` stands for no role.

        Raises:
            ConfigError: a prompt is more than words before the text.
        """
        prefixes = {}
        for role, prompt in self.encoder.settings.prompts.items():
            before, _, after = prompt.template.partition("{text}")
            if after or prompt.denoise or prompt.pooled != "all":
                raise ConfigError(
                    f"the {role} prompt {prompt.template!r} does more than come before the text: "
                    "use mmembed.gpte.TextEncoder for this model"
                )
            name = "" if role == "default" else role
            prefixes[name] = before.format(instruction=prompt.instruction)
        return prefixes

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        found = self.encoder.tokenizer(list(texts), truncation=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        """Token ids of each item.

        Raises:
            InputError: an item holds media, or no text; ``position`` is its index.
        """
        texts = []
        for position, item in enumerate(items):
            words = [part for part in item.parts if isinstance(part, str)]
            if len(words) != len(item.parts):
                raise InputError(
                    item.label, "is no text, and this model reads text only", "use another model"
                ).at(position)
            texts.append(item.instruction + "\n".join(words))
        # The prompts of the encoder have come as the items' instructions.
        return self.encoder.tokenizing.rows(Prompt(), texts, [None] * len(texts))

    def collate(self, rows: Sequence[Row]) -> Any:
        return self.encoder.collate(rows)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the encoder's own heads give."""
        heads = self.encoder.settings.heads
        sparse = ("sparse",) if {"lexical", "splade"} & set(heads) else ()
        return (*(name for name in ("dense", "multi") if name in heads), *sparse)

    def embed(self, batch: Any) -> Outputs:
        """All outputs of the encoder."""
        found: Outputs = self.encoder(batch)
        return found

    def forward(self, batch: Any) -> TokenStates:
        vectors = self.encoder(batch).dense
        assert vectors is not None
        return TokenStates(vectors, torch.arange(len(vectors) + 1, device=vectors.device))

    def save_pretrained(self, folder: str) -> None:
        self.encoder.save_pretrained(folder)

"""What the tiny models share: a byte-level tokenizer, a shape of text, a shape of vision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

__all__ = ["TEXT", "VISION", "WIDTH", "saved", "tokenizer"]

WIDTH = 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def tokenizer(specials: Sequence[str], **names: str) -> PreTrainedTokenizerFast:
    """Byte-level, with these special tokens from id 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    fast.add_special_tokens({"additional_special_tokens": list(specials)})
    return fast


def saved(folder: Path, model: Any, fast: Any, processor: Any) -> Path:
    """Write a model, its tokenizer and its processor to a folder; the folder."""
    with torch.no_grad():  # default initialisation leaves states so small that tests see nothing
        for name, parameter in model.named_parameters():
            if not parameter.any() and not name.endswith("bias"):
                parameter.fill_(0.5) if parameter.ndim < 2 else parameter.normal_(std=0.1)
            elif parameter.ndim > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

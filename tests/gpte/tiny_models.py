"""Random models of two layers, by their transformers' name, under a tokenizer of 400 words."""

from __future__ import annotations

from typing import Any

import torch
import transformers

TINY: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_OF: dict[str, dict[str, Any]] = {
    "Qwen3": _GROUPED,
    "Llama": _GROUPED,
    "Mistral": _GROUPED,
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
}


def model_of(family: str, kind: str = "AutoModel", **options: Any) -> Any:
    """The model in evaluation mode; ``kind`` is the class of transformers that makes it."""
    torch.manual_seed(0)
    values = {**TINY, "pad_token_id": 0, **_OF.get(family, {}), **options}
    config = getattr(transformers, f"{family}Config")(**values)
    return getattr(transformers, kind).from_config(config).eval()

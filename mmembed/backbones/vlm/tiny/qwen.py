"""Tiny random models of the Qwen-VL families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mmembed.backbones.vlm.tiny.shared import TEXT, WIDTH, saved, tokenizer

__all__ = ["QWEN_SPECIALS", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_vl"]

QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def _qwen_tokenizer() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    fast = tokenizer(QWEN_SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = fast.convert_tokens_to_ids
    return fast, {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _checkpoint(
    folder: Path,
    kind: str,
    *,
    text: dict[str, Any] | None = None,
    rope: dict[str, Any],
    vision: dict[str, Any],
    patch: int = 14,
) -> Path:
    """A model of transformers' classes ``{kind}Config`` and ``{kind}ForConditionalGeneration``."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fast, ids = _qwen_tokenizer()
    config = getattr(hf, f"{kind}Config")(
        text_config={
            **TEXT,
            **(text or {}),
            "vocab_size": len(fast),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **rope},
        },
        vision_config={"hidden_size": WIDTH, "depth": 2, "num_heads": 2, **vision},
        **ids,
    )
    torch.manual_seed(0)
    model = getattr(hf, f"{kind}ForConditionalGeneration")(config)
    token = (2 * patch) ** 2
    processor = Qwen2VLImageProcessorPil(patch_size=patch, min_pixels=token, max_pixels=token * 12)
    return saved(folder, model, fast, processor)


_LATER_VISION = {"out_hidden_size": WIDTH, "intermediate_size": 2 * WIDTH}
_QWEN3_VISION = {**_LATER_VISION, "num_position_embeddings": 64}


def qwen2_vl(folder: Path) -> Path:
    """A tiny random Qwen2-VL in this folder; the folder."""
    vision = {"embed_dim": WIDTH, "mlp_ratio": 2}
    return _checkpoint(folder, "Qwen2VL", rope={"mrope_section": [1, 1, 2]}, vision=vision)


def qwen2_5_vl(folder: Path) -> Path:
    """A tiny random Qwen2.5-VL in this folder; the folder."""
    vision = {**_LATER_VISION, "fullatt_block_indexes": [1]}
    return _checkpoint(folder, "Qwen2_5_VL", rope={"mrope_section": [1, 1, 2]}, vision=vision)


def qwen3_vl(folder: Path) -> Path:
    """A tiny random Qwen3-VL in this folder; the folder."""
    return _checkpoint(
        folder,
        "Qwen3VL",
        text={"head_dim": 8},
        rope={"mrope_section": [2, 1, 1]},
        vision={**_QWEN3_VISION, "depth": 3, "deepstack_visual_indexes": [0, 1]},
        patch=16,
    )


def qwen3_5(folder: Path) -> Path:
    """A tiny random Qwen3.5 in this folder; the folder."""
    return _checkpoint(
        folder,
        "Qwen3_5",
        text={
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        rope={
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
            "partial_rotary_factor": 1.0,
        },
        vision=_QWEN3_VISION,
        patch=16,
    )

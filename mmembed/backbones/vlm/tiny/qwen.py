"""Tiny random models of the Qwen-VL families."""

from __future__ import annotations

from pathlib import Path

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


def qwen2_vl(folder: Path) -> Path:
    """A tiny random Qwen2-VL in this folder; the folder."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fast, ids = _qwen_tokenizer()
    config = hf.Qwen2VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2,
        },
        **ids,
    )
    torch.manual_seed(0)
    model = hf.Qwen2VLForConditionalGeneration(config)
    return saved(folder, model, fast, Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=784 * 12))


def qwen2_5_vl(folder: Path) -> Path:
    """A tiny random Qwen2.5-VL in this folder; the folder."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fast, ids = _qwen_tokenizer()
    config = hf.Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "depth": 2,
            "num_heads": 2,
            "fullatt_block_indexes": [1],
        },
        **ids,
    )
    torch.manual_seed(0)
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    return saved(folder, model, fast, Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=784 * 12))


def qwen3_vl(folder: Path) -> Path:
    """A tiny random Qwen3-VL in this folder; the folder."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fast, ids = _qwen_tokenizer()
    config = hf.Qwen3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        vision_config={
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "depth": 3,
            "num_heads": 2,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        **ids,
    )
    torch.manual_seed(0)
    model = hf.Qwen3VLForConditionalGeneration(config)
    processor = Qwen2VLImageProcessorPil(patch_size=16, min_pixels=1024, max_pixels=1024 * 12)
    return saved(folder, model, fast, processor)


def qwen3_5(folder: Path) -> Path:
    """A tiny random Qwen3.5 in this folder; the folder."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fast, ids = _qwen_tokenizer()
    config = hf.Qwen3_5Config(
        text_config={
            **TEXT,
            "head_dim": 8,
            "vocab_size": len(fast),
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
                "partial_rotary_factor": 1.0,
            },
        },
        vision_config={
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "depth": 2,
            "num_heads": 2,
            "num_position_embeddings": 64,
        },
        **ids,
    )
    torch.manual_seed(0)
    model = hf.Qwen3_5ForConditionalGeneration(config)
    processor = Qwen2VLImageProcessorPil(patch_size=16, min_pixels=1024, max_pixels=1024 * 12)
    return saved(folder, model, fast, processor)

"""Tiny random vision-language models of the real architectures, saved in a checkpoint's layout.

For tests, and for recipes at ``size: tiny``. A family's builder is named in ``TINY``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmembed.errors import ConfigError
from mmembed.gpte.text_loading import quiet_transformers

__all__ = ["TINY", "WIDTH", "tiny_vlm"]

WIDTH = 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tiny_vlm(family: str, folder: Path) -> Path:
    """Write a tiny random model of a family, unless the folder holds it already.

    Raises:
        ConfigError: there is no such family.
    """
    if family not in TINY:
        raise ConfigError(f"no tiny model of family {family!r} (known: {', '.join(sorted(TINY))})")
    if (folder / "preprocessor_config.json").exists():
        return folder
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        return TINY[family](folder)


def tokenizer(specials: Sequence[str], **names: str) -> PreTrainedTokenizerFast:
    """Byte-level, with these special tokens from id 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    fast.add_special_tokens({"additional_special_tokens": list(specials)})
    return fast


def _save(folder: Path, model: Any, fast: Any, processor: Any) -> Path:
    with torch.no_grad():  # default initialisation leaves states so small that tests see nothing
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


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
    return _save(folder, model, fast, Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=784 * 12))


def qwen2_5_vl(folder: Path) -> Path:
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
    return _save(folder, model, fast, Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=784 * 12))


def qwen3_vl(folder: Path) -> Path:
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
    return _save(folder, model, fast, processor)


def _llava_vision() -> dict[str, int]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }


def llava_next(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    fast = tokenizer(["<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**TEXT, vocab_size=len(fast), sliding_window=None),
        vision_config=hf.CLIPVisionConfig(**_llava_vision()),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    model = hf.LlavaNextForConditionalGeneration(config)
    size = {"shortest_edge": 32}
    crop = {"height": 32, "width": 32}
    processor = LlavaNextImageProcessorPil(image_grid_pinpoints=grid, size=size, crop_size=crop)
    return _save(folder, model, fast, processor)


def llava_onevision(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    fast = tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], eos_token="<|im_end|>")
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(fast)),
        vision_config=hf.SiglipVisionConfig(**_llava_vision(), vision_use_head=False),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        video_token_index=fast.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    model = hf.LlavaOnevisionForConditionalGeneration(config)
    size = {"height": 32, "width": 32}
    processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=grid, size=size)
    return _save(folder, model, fast, processor)


TINY: dict[str, Callable[[Path], Path]] = {
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}

"""Tiny random models of families that cut images into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mmembed.backbones.vlm.tiny.shared import TEXT, VISION, saved, tokenizer

__all__ = [
    "idefics3",
    "internvl",
    "llava_next",
    "llava_onevision",
    "modernvbert",
    "phi4",
    "smolvlm",
]

_TILES = [f"<row_{r + 1}_col_{c + 1}>" for r in range(6) for c in range(6)]


def llava_next(folder: Path) -> Path:
    """A tiny random LLaVA-NeXT in this folder; the folder."""
    import transformers as hf
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    fast = tokenizer(["<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**TEXT, vocab_size=len(fast), sliding_window=None),
        vision_config=hf.CLIPVisionConfig(**VISION),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    model = hf.LlavaNextForConditionalGeneration(config)
    size = {"shortest_edge": 32}
    crop = {"height": 32, "width": 32}
    processor = LlavaNextImageProcessorPil(image_grid_pinpoints=grid, size=size, crop_size=crop)
    return saved(folder, model, fast, processor)


def phi4(folder: Path) -> Path:
    """A tiny random Phi-4-multimodal in this folder; the folder."""
    import transformers as hf

    from mmembed.backbones.vlm.phi4_pixels import Phi4Pixels

    specials = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext10|>"]
    fast = tokenizer(specials, eos_token="<|end|>", pad_token="<|endoftext|>")
    ids = fast.convert_tokens_to_ids
    vision = {**VISION, "crop_size": 32, "image_token_id": ids("<|endoftext10|>")}
    audio = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_blocks": 1,
        "num_attention_heads": 2,
        "input_size": 16,
        "ext_pw_out_channel": 32,
        "nemo_conv_channels": 32,
        "depthwise_separable_out_channel": 32,
        "audio_token_id": ids("<|endoftext|>"),
    }
    config = hf.Phi4MultimodalConfig(
        **TEXT,
        vocab_size=len(fast),
        vision_config=vision,
        audio_config=audio,
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|end|>"),
        pad_token_id=ids("<|endoftext|>"),
    )
    torch.manual_seed(0)
    model = hf.Phi4MultimodalForCausalLM(config)
    return saved(folder, model, fast, Phi4Pixels(side=32, patch_size=8, most=6))


def llava_onevision(folder: Path) -> Path:
    """A tiny random LLaVA-OneVision in this folder; the folder."""
    import transformers as hf
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    fast = tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], eos_token="<|im_end|>")
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(fast)),
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        video_token_index=fast.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    model = hf.LlavaOnevisionForConditionalGeneration(config)
    size = {"height": 32, "width": 32}
    processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=grid, size=size)
    return saved(folder, model, fast, processor)


def internvl(folder: Path) -> Path:
    """A tiny random InternVL in this folder; the folder."""
    import transformers as hf
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    fast = tokenizer(["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"])
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(fast)),
        vision_config=hf.InternVLVisionConfig(**VISION),
        image_token_id=fast.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    torch.manual_seed(0)
    model = hf.InternVLForConditionalGeneration(config)
    size = {"height": 32, "width": 32}
    processor = GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=3)
    return saved(folder, model, fast, processor)


def _idefics_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>"]
    return tokenizer([*names, "<global-img>", *_TILES], bos_token="<|im_start|>")


def _idefics_processor() -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    size, whole = {"longest_edge": 64}, {"longest_edge": 32}
    return Idefics3ImageProcessorPil(size=size, max_image_size=whole, do_image_splitting=True)


def _over_llama(folder: Path, config_class: Any, model_class: Any) -> Path:
    import transformers as hf

    fast = _idefics_tokenizer()
    config = config_class(
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(fast), pad_token_id=0),
        vision_config={**VISION},
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return saved(folder, model_class(config), fast, _idefics_processor())


def idefics3(folder: Path) -> Path:
    """A tiny random Idefics3 in this folder; the folder."""
    import transformers as hf

    return _over_llama(folder, hf.Idefics3Config, hf.Idefics3ForConditionalGeneration)


def smolvlm(folder: Path) -> Path:
    """A tiny random SmolVLM in this folder; the folder."""
    import transformers as hf

    return _over_llama(folder, hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration)


def modernvbert(folder: Path) -> Path:
    """A tiny random ModernVBERT in this folder; the folder."""
    import transformers as hf

    fast = _idefics_tokenizer()
    shape = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    config = hf.ModernVBertConfig(
        text_config=hf.ModernBertConfig(**shape, vocab_size=len(fast), pad_token_id=0),
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        pixel_shuffle_factor=2,
    )
    torch.manual_seed(0)
    return saved(folder, hf.ModernVBertModel(config), fast, _idefics_processor())

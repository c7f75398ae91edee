"""Tiny random models of families whose attention is not plain: PaliGemma, Gemma 3, Mllama."""

from __future__ import annotations

from pathlib import Path

import torch

from mmembed.backbones.vlm.tiny.shared import TEXT, VISION, WIDTH, saved, tokenizer

__all__ = ["gemma3", "mllama", "paligemma"]


def paligemma(folder: Path) -> Path:
    """A tiny random PaliGemma in this folder; the folder."""
    import transformers as hf
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    fast = tokenizer(["<pad>", "<bos>", "<eos>", "<image>"], bos_token="<bos>", pad_token="<pad>")
    config = hf.PaliGemmaConfig(
        text_config=hf.GemmaConfig(**TEXT, head_dim=8, vocab_size=len(fast)),
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False, projection_dim=WIDTH),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    torch.manual_seed(0)
    model = hf.PaliGemmaForConditionalGeneration(config)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return saved(folder, model, fast, processor)


def gemma3(folder: Path) -> Path:
    """A tiny random Gemma 3 in this folder; the folder."""
    import transformers as hf
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    names = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
    fast = tokenizer([*names, "<image_soft_token>", "<bos>"], bos_token="<bos>")
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            **TEXT, head_dim=8, vocab_size=len(fast), sliding_window=64, query_pre_attn_scalar=8
        ),
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_index=fast.convert_tokens_to_ids("<image_soft_token>"),
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    model = hf.Gemma3ForConditionalGeneration(config)
    processor = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return saved(folder, model, fast, processor)


def mllama(folder: Path) -> Path:
    """A tiny random Llama 3.2 Vision in this folder; the folder."""
    import transformers as hf
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    fast = tokenizer(["<|begin_of_text|>", "<|image|>", "<|pad|>"], pad_token="<|pad|>")
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]}
    config = hf.MllamaConfig(
        text_config=hf.models.mllama.MllamaTextConfig(
            **text, vocab_size=len(fast) - 8, pad_token_id=0, bos_token_id=1, eos_token_id=2
        ),
        vision_config=hf.models.mllama.MllamaVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_global_layers=1,
            attention_heads=2,
            image_size=32,
            patch_size=8,
            max_num_tiles=4,
            vision_output_dim=2 * WIDTH,
            intermediate_layers_indices=[0],
        ),
        image_token_index=fast.convert_tokens_to_ids("<|image|>"),
    )
    config.text_config.vocab_size = len(fast)
    torch.manual_seed(0)
    model = hf.MllamaForConditionalGeneration(config)
    processor = MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=4)
    return saved(folder, model, fast, processor)

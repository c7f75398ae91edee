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
        for name, parameter in model.named_parameters():
            if not parameter.any() and not name.endswith("bias"):
                parameter.fill_(0.5) if parameter.ndim < 2 else parameter.normal_(std=0.1)
            elif parameter.ndim > 1:
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


def internvl(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    fast = tokenizer(["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"])
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**TEXT, vocab_size=len(fast)),
        vision_config=hf.InternVLVisionConfig(**_llava_vision()),
        image_token_id=fast.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    torch.manual_seed(0)
    model = hf.InternVLForConditionalGeneration(config)
    size = {"height": 32, "width": 32}
    processor = GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=3)
    return _save(folder, model, fast, processor)


_TILES = [f"<row_{r + 1}_col_{c + 1}>" for r in range(6) for c in range(6)]


def _idefics_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>"]
    return tokenizer([*names, "<global-img>", *_TILES], bos_token="<|im_start|>")


def _idefics_processor() -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    size, whole = {"longest_edge": 64}, {"longest_edge": 32}
    return Idefics3ImageProcessorPil(size=size, max_image_size=whole, do_image_splitting=True)


def idefics3(folder: Path) -> Path:
    import transformers as hf

    fast = _idefics_tokenizer()
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(fast), pad_token_id=0),
        vision_config={**_llava_vision()},
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = hf.Idefics3ForConditionalGeneration(config)
    return _save(folder, model, fast, _idefics_processor())


def smolvlm(folder: Path) -> Path:
    import transformers as hf

    fast = _idefics_tokenizer()
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(fast), pad_token_id=0),
        vision_config={**_llava_vision()},
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = hf.SmolVLMForConditionalGeneration(config)
    return _save(folder, model, fast, _idefics_processor())


def modernvbert(folder: Path) -> Path:
    import transformers as hf

    fast = _idefics_tokenizer()
    shape = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    config = hf.ModernVBertConfig(
        text_config=hf.ModernBertConfig(**shape, vocab_size=len(fast), pad_token_id=0),
        vision_config=hf.SiglipVisionConfig(**_llava_vision(), vision_use_head=False),
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        pixel_shuffle_factor=2,
    )
    torch.manual_seed(0)
    return _save(folder, hf.ModernVBertModel(config), fast, _idefics_processor())


def paligemma(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    fast = tokenizer(["<pad>", "<bos>", "<eos>", "<image>"], bos_token="<bos>", pad_token="<pad>")
    config = hf.PaliGemmaConfig(
        text_config=hf.GemmaConfig(**TEXT, head_dim=8, vocab_size=len(fast)),
        vision_config=hf.SiglipVisionConfig(
            **_llava_vision(), vision_use_head=False, projection_dim=WIDTH
        ),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    torch.manual_seed(0)
    model = hf.PaliGemmaForConditionalGeneration(config)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(folder, model, fast, processor)


def gemma3(folder: Path) -> Path:
    import transformers as hf
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    names = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
    fast = tokenizer([*names, "<image_soft_token>", "<bos>"], bos_token="<bos>")
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            **TEXT, head_dim=8, vocab_size=len(fast), sliding_window=64, query_pre_attn_scalar=8
        ),
        vision_config=hf.SiglipVisionConfig(**_llava_vision(), vision_use_head=False),
        image_token_index=fast.convert_tokens_to_ids("<image_soft_token>"),
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    model = hf.Gemma3ForConditionalGeneration(config)
    processor = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return _save(folder, model, fast, processor)


def mllama(folder: Path) -> Path:
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
    return _save(folder, model, fast, processor)


def qwen3_5(folder: Path) -> Path:
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
    return _save(folder, model, fast, processor)


TINY: dict[str, Callable[[Path], Path]] = {
    "smolvlm": smolvlm,
    "qwen3_5": qwen3_5,
    "paligemma": paligemma,
    "modernvbert": modernvbert,
    "mllama": mllama,
    "internvl": internvl,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}

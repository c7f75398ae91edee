"""Tiny random two towers of the real architectures, saved as their checkpoints are.

For tests, and for recipes at ``size: tiny``. A family's builder is named in ``TINY_TOWERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing

from mmembed.backbones.towers.open_clip_towers import CONFIG_NAME
from mmembed.backbones.vlm.tiny.shared import WIDTH, saved, tokenizer
from mmembed.errors import ConfigError
from mmembed.gpte.text_loading import quiet_transformers

__all__ = ["TINY_TOWERS", "tiny_towers"]

_SIDE, _PATCH, _SPACE, _LENGTH = 32, 8, 16, 48
_BEGIN, _END, _PAD = 256, 257, 258
_SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_TEXT: dict[str, Any] = {
    **_SHAPE,
    "vocab_size": 300,
    "max_position_embeddings": _LENGTH,
    "bos_token_id": _BEGIN,
    "eos_token_id": _END,
    "pad_token_id": _PAD,
}
_VISION: dict[str, Any] = {**_SHAPE, "image_size": _SIDE, "patch_size": _PATCH}
_SQUARE = {"height": _SIDE, "width": _SIDE}


def _tokenizer() -> Any:
    fast = tokenizer(["<s>", "</s>", "<pad>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", _BEGIN), ("</s>", _END)]
    )
    return fast


def clip(folder: Path) -> Path:
    """A tiny random CLIP."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=_SPACE)
    processor = CLIPImageProcessorPil(size={"shortest_edge": _SIDE}, crop_size=_SQUARE)
    return saved(folder, CLIPModel(config), _tokenizer(), processor)


def chinese_clip(folder: Path) -> Path:
    """A tiny random Chinese-CLIP."""
    from transformers import ChineseCLIPConfig, ChineseCLIPModel
    from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
        ChineseCLIPImageProcessorPil,
    )

    config = ChineseCLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=_SPACE)
    processor = ChineseCLIPImageProcessorPil(size=_SQUARE, crop_size=_SQUARE)
    return saved(folder, ChineseCLIPModel(config), _tokenizer(), processor)


def siglip(folder: Path) -> Path:
    """A tiny random SigLIP."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    config = SiglipConfig(text_config={**_TEXT, "projection_size": WIDTH}, vision_config=_VISION)
    return saved(folder, SiglipModel(config), _tokenizer(), SiglipImageProcessorPil(size=_SQUARE))


def siglip2(folder: Path) -> Path:
    """A tiny random SigLIP 2."""
    from transformers import Siglip2Config, Siglip2Model, Siglip2Tokenizer
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    vision = {**_SHAPE, "num_patches": 16, "patch_size": _PATCH}
    specials = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text = {**_TEXT, **specials, "projection_size": WIDTH}
    config = Siglip2Config(text_config=text, vision_config=vision)
    processor = Siglip2ImageProcessorPil(patch_size=_PATCH, max_num_patches=16)
    # AutoTokenizer makes this class of every siglip2 folder: words in bytes, lower-cased.
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256))]
    vocab = {name: i for i, name in enumerate(names)}
    words = Siglip2Tokenizer(vocab, [], add_eos_token=True, padding_side="right")
    return saved(folder, Siglip2Model(config), words, processor)


def align(folder: Path) -> Path:
    """A tiny random ALIGN."""
    from transformers import AlignConfig, AlignModel
    from transformers.models.efficientnet.image_processing_pil_efficientnet import (
        EfficientNetImageProcessorPil,
    )

    vision = {
        "image_size": _SIDE,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "hidden_dim": _SPACE,
    }
    # The vectors of the vision tower are its last channels: the space has as many dimensions.
    config = AlignConfig(text_config=_TEXT, vision_config=vision, projection_dim=24)
    processor = EfficientNetImageProcessorPil(size=_SQUARE)
    return saved(folder, AlignModel(config), _tokenizer(), processor)


def blip(folder: Path) -> Path:
    """A tiny random BLIP with its matching head."""
    from transformers import BlipConfig, BlipForImageTextRetrieval

    text = {**_TEXT, "encoder_hidden_size": WIDTH}
    config = BlipConfig(
        text_config=text,
        vision_config=_VISION,
        projection_dim=_SPACE,
        image_text_hidden_size=_SPACE,
    )
    return saved(folder, BlipForImageTextRetrieval(config), _tokenizer(), _blip_processor())


def blip2(folder: Path) -> Path:
    """A tiny random BLIP-2 with its matching head."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    former = {**_TEXT, "encoder_hidden_size": WIDTH, "use_qformer_text_input": True}
    config = Blip2Config(
        vision_config=_VISION,
        qformer_config=former,
        num_query_tokens=4,
        image_text_hidden_size=_SPACE,
    )
    return saved(folder, Blip2ForImageTextRetrieval(config), _tokenizer(), _blip_processor())


def _blip_processor() -> Any:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil(size=_SQUARE)


def coca(folder: Path) -> Path:
    """A CoCa of open_clip, which must be installed."""
    import json
    from tempfile import TemporaryDirectory

    from mmembed.backbones.towers.open_clip_towers import OpenClipTowers, open_clip_library

    library = open_clip_library()
    text = {"context_length": 16, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 1}
    vision = {
        **{"image_size": _SIDE, "patch_size": _PATCH, "width": WIDTH, "layers": 2},
        **{"head_width": 16, "attn_pooler_heads": 2},
        **{"attentional_pool": True, "output_tokens": True},
    }
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": vision,
        "text_cfg": {**text, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text,
        "custom_text": True,
    }
    with TemporaryDirectory() as place:
        name, weights = "coca_mmembed_tiny", Path(place) / "weights.pt"
        file = Path(place) / f"{name}.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        library.add_model_config(file)
        made = library.create_model(name, load_weights=False)
        # open_clip leaves it as it finds the memory, NaN among it.
        torch.nn.init.normal_(made.text_decoder.text_projection, std=WIDTH**-0.5)
        torch.save(made.state_dict(), weights)
        OpenClipTowers.from_name(f"{name}@{weights}").save_pretrained(str(folder))
    return folder


TINY_TOWERS: dict[str, Callable[[Path], Path]] = {
    "align": align,
    "blip": blip,
    "blip2": blip2,
    "chinese_clip": chinese_clip,
    "clip": clip,
    "coca": coca,
    "siglip": siglip,
    "siglip2": siglip2,
}


def tiny_towers(family: str, folder: Path) -> Path:
    """Write tiny random towers of a family, unless the folder holds them already.

    Raises:
        ConfigError: there is no such family.
    """
    if family not in TINY_TOWERS:
        known = ", ".join(sorted(TINY_TOWERS))
        raise ConfigError(f"no tiny towers of family {family!r} (known: {known})")
    if any((folder / name).exists() for name in ("preprocessor_config.json", CONFIG_NAME)):
        return folder
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        return TINY_TOWERS[family](folder)

"""``torch.compile`` of a language model's blocks, over few lengths of a packed batch.

Every new length would be compiled anew, so batches are filled up to the next bucket with a row of
padding that nothing else sees. Attention stays as it is: its rows differ with every batch.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.errors import ConfigError
from mmembed.gpte import packed

__all__ = ["compile_blocks"]

_NAME = "mmembed_packed_uncompiled"


def compile_blocks(backbone: VisionLanguage, **options: Any) -> int:
    """Compile the blocks of the language model in place; the first batch of each bucket is slow.

    Meant for a GPU. On the CPU the linear layers are those of oneDNN, which stay as they are.

    Args:
        backbone: ``embedder.backbone`` of a vision-language model.
        options: of :func:`torch.compile`.

    Returns:
        How many blocks there are.

    Raises:
        ConfigError: the model names no blocks, or the family pads its batches.
    """
    if not backbone.packs:
        raise ConfigError(f"{type(backbone).__name__}: its padded batches have too many shapes")
    model = backbone.language_model
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in kinds]
    if not blocks:
        raise ConfigError(f"{type(model).__name__} names no blocks to compile")
    AttentionInterface.register(_NAME, torch.compiler.disable(packed.attention))
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == packed.NAME:
            config._attn_implementation = _NAME
    for block in blocks:
        block.compile(dynamic=False, **options)
    backbone.compiled = True
    return len(blocks)

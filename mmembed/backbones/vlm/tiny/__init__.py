"""Tiny random vision-language models of the real architectures, saved in a checkpoint's layout.

For tests, and for recipes at ``size: tiny``. A family's builder is named in ``TINY``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mmembed.backbones.vlm.tiny.masked import gemma3, mllama, paligemma
from mmembed.backbones.vlm.tiny.qwen import (
    QWEN_SPECIALS,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_vl,
)
from mmembed.backbones.vlm.tiny.shared import WIDTH, tokenizer
from mmembed.backbones.vlm.tiny.tiled import (
    idefics3,
    internvl,
    llava_next,
    llava_onevision,
    modernvbert,
    phi4,
    smolvlm,
)
from mmembed.errors import ConfigError
from mmembed.gpte.text_loading import quiet_transformers

__all__ = ["QWEN_SPECIALS", "TINY", "WIDTH", "tiny_vlm", "tokenizer"]

TINY: dict[str, Callable[[Path], Path]] = {
    "smolvlm": smolvlm,
    "qwen3_5": qwen3_5,
    "paligemma": paligemma,
    "phi4_multimodal": phi4,
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

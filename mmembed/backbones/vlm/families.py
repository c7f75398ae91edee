"""The families there are. Adding one is writing its file and naming it here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmembed.backbones.vlm.model import VisionLanguage

__all__ = ["families"]


@cache
def families() -> tuple[type[VisionLanguage], ...]:
    """The classes of all families; imported when first asked for, because transformers is heavy."""
    from mmembed.backbones.vlm.gemma3 import Gemma3
    from mmembed.backbones.vlm.idefics3 import Idefics3
    from mmembed.backbones.vlm.internvl import InternVL
    from mmembed.backbones.vlm.llava_next import LlavaNext
    from mmembed.backbones.vlm.llava_onevision import LlavaOneVision
    from mmembed.backbones.vlm.llava_qwen import LlavaQwen
    from mmembed.backbones.vlm.mllama import Mllama
    from mmembed.backbones.vlm.modernvbert import ModernVBert
    from mmembed.backbones.vlm.paligemma import PaliGemma
    from mmembed.backbones.vlm.phi4 import Phi4Multimodal
    from mmembed.backbones.vlm.qwen2_5_vl import Qwen25VL
    from mmembed.backbones.vlm.qwen2_vl import Qwen2VL
    from mmembed.backbones.vlm.qwen3_5 import Qwen35
    from mmembed.backbones.vlm.qwen3_vl import Qwen3VL

    return (
        Gemma3,
        Idefics3,
        InternVL,
        LlavaNext,
        LlavaOneVision,
        LlavaQwen,
        Mllama,
        ModernVBert,
        PaliGemma,
        Phi4Multimodal,
        Qwen25VL,
        Qwen2VL,
        Qwen35,
        Qwen3VL,
    )

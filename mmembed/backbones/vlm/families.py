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
    from mmembed.backbones.vlm.llava_next import LlavaNext
    from mmembed.backbones.vlm.llava_onevision import LlavaOneVision
    from mmembed.backbones.vlm.qwen2_5_vl import Qwen25VL
    from mmembed.backbones.vlm.qwen2_vl import Qwen2VL
    from mmembed.backbones.vlm.qwen3_vl import Qwen3VL

    return (LlavaNext, LlavaOneVision, Qwen2VL, Qwen25VL, Qwen3VL)

"""The two-tower families of transformers; a new one is one more line here and one small file."""

from __future__ import annotations

from functools import cache

from mmembed.backbones.towers.transformers_towers import TransformersTowers

__all__ = ["tower_families"]


@cache
def tower_families() -> tuple[type[TransformersTowers], ...]:
    """All of them."""
    from mmembed.backbones.towers.align import Align
    from mmembed.backbones.towers.blip import Blip
    from mmembed.backbones.towers.blip2 import Blip2
    from mmembed.backbones.towers.clip import ChineseClip, Clip
    from mmembed.backbones.towers.siglip import Siglip, Siglip2

    return (Align, Blip, Blip2, ChineseClip, Clip, Siglip, Siglip2)

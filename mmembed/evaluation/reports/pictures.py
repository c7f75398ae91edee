"""Small pictures of media, for galleries of failures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item

__all__ = ["thumbnail"]

_MEDIA = ("image", "video", "document")
_SIDE = 160


def thumbnail(item: Mapping[str, str]) -> str:
    """A JPEG of the item's medium as a data URI: the picture, a clip's first frame, or the page.

    Empty for an item without media, and where its file is gone or broken.
    """
    media = {key: value for key, value in item.items() if key in _MEDIA}
    if not media:
        return ""
    try:
        (part, *_) = decode_item(media, MediaBudget(page_dpi=60, max_frames=2)).parts
    except InputError:
        return ""
    picture = _picture(part)
    picture.thumbnail((_SIDE, _SIDE))
    packed = io.BytesIO()
    picture.convert("RGB").save(packed, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _picture(part: Any) -> Any:
    from PIL import Image

    from mmembed.inputs.decoded import Frames, Page

    if isinstance(part, Frames):
        return Image.fromarray(part.pixels[0])
    return part.image if isinstance(part, Page) else part.copy()

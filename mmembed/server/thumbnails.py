"""Previews of photos, pages and clips, made when asked for and kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item
from mmembed.inputs.decoded import Frames, Page
from mmembed.server.library import MediaFile

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Thumbnail", "Thumbnails"]

_AT_ONCE = 2  # decodes; more would only compete for the same cores
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP image, and a tag that changes with the file it was made from."""

    data: bytes
    etag: str


class Thumbnails:
    """Makes previews, and keeps the last ones made within ``max_bytes``. Thread-safe."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_AT_ONCE)

    def get(self, file: MediaFile, side: int) -> Thumbnail:
        """A preview no longer than ``side`` pixels on either side.

        Raises:
            InputError: the file cannot be decoded.
            OSError: the file is gone.
        """
        status = file.path.stat()
        etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{file.page or 0}-{side}"
        key = f"{file.path}|{etag}"
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        with self._decoding:
            thumbnail = Thumbnail(_render(file, side), etag)
        self._keep(key, thumbnail)
        return thumbnail

    def _keep(self, key: str, thumbnail: Thumbnail) -> None:
        with self._lock:
            if key not in self._kept:
                self._bytes += len(thumbnail.data)
            self._kept[key] = thumbnail
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)


def _render(file: MediaFile, side: int) -> bytes:
    # Twice the pixels that are shown, so that the last resize is a sharp one.
    budget = MediaBudget(max_pixels=2 * side * side, page_dpi=200, max_frames=3)
    image = _picture(decode_item(file.item, budget).parts[0])
    image.thumbnail((side, side))
    out = BytesIO()
    image.save(out, "WEBP", quality=_QUALITY)
    return out.getvalue()


def _picture(part: object) -> PILImage:
    from PIL import Image

    if isinstance(part, Page):
        return part.image
    if isinstance(part, Frames):
        # Clips often fade in from black: the middle says more than the first frame.
        return Image.fromarray(part.pixels[min(1, len(part.pixels) - 1)])
    assert isinstance(part, Image.Image)
    return part

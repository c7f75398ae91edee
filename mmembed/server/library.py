"""Which files the server may give out: only those that a search has found, by opaque ids."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path

from mmembed.inputs.items import DocumentPart, ImagePart, Item, VideoPart, parse_item
from mmembed.search.layout import is_url
from mmembed.search.results import Hit
from mmembed.server.errors import RequestError

__all__ = ["Library", "MediaFile"]

_MAX_KNOWN = 100_000

# What a browser shows by itself. SVG is not among them: it can carry scripts.
_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".ogv": "video/ogg",
    ".pdf": "application/pdf",
}


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of the index.

    Attributes:
        item_id: the id of the item in the index.
        path: the file, as the index names it.
        modality: image, video or document.
        page: page number from 1, or None.
    """

    item_id: str
    path: Path
    modality: str
    page: int | None

    @property
    def media_type(self) -> str | None:
        """The type to serve the file itself under; None where a browser cannot show it."""
        return _MEDIA_TYPES.get(self.path.suffix.lower())

    @property
    def item(self) -> Item:
        """The item to decode for a preview."""
        if self.modality == "video":
            return Item((VideoPart(self.path),))
        if self.modality == "document":
            return Item((DocumentPart(self.path, self.page or 1),))
        return Item((ImagePart(self.path),))


class Library:
    """Remembers the items that searches have found, and gives out no other file.

    An id is a hash of the item's id, so that it says nothing about paths and stays the same over
    restarts; but a server answers to it only after a search of its own has found the item.

    Args:
        roots: folders that files must lie in after symbolic links are resolved. None holds every
            file to the folder that it was indexed in, so that a link does not lead out of it.
    """

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self._roots = None if roots is None else tuple(root.resolve() for root in roots)
        self._known: OrderedDict[str, tuple[str, MediaFile | None]] = OrderedDict()
        self._lock = threading.Lock()

    def register(self, hit: Hit) -> tuple[str, MediaFile | None]:
        """The opaque id of a hit, and its file, if it has one that may be given out."""
        token = blake2b(hit.id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        file = self._file(hit)
        with self._lock:
            self._known[token] = (hit.id, file)
            self._known.move_to_end(token)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return token, file

    def item_id(self, token: str) -> str:
        """The index's id behind an opaque id.

        Raises:
            RequestError: 404, no search has found such an item.
        """
        with self._lock:
            known = self._known.get(token)
        if known is None:
            raise RequestError(
                HTTPStatus.NOT_FOUND, "id", f"{token[:40]}: is not the id of an item found before"
            )
        return known[0]

    def file(self, token: str) -> MediaFile:
        """The file behind an opaque id, which exists and lies where files may be given out from.

        Raises:
            RequestError: 404, there is no such item, or it has no such file (any more).
        """
        self.item_id(token)
        with self._lock:
            file = self._known[token][1]
        # Checked again at every request: a link may have changed since.
        if file is None or not self._is_allowed(file.path) or not file.path.is_file():
            raise RequestError(HTTPStatus.NOT_FOUND, "id", f"{token}: has no file to show")
        return file

    def folder_of(self, path: Path) -> str:
        """Where a file lies, relative to the root it is in, or just the name of its folder."""
        for root in self._roots or ():
            if path.resolve().is_relative_to(root):
                return path.resolve().relative_to(root).parent.as_posix()
        return path.parent.name

    def _file(self, hit: Hit) -> MediaFile | None:
        if hit.uri is None or is_url(hit.uri) or hit.modality == "text":
            return None
        name = hit.uri
        if hit.modality == "document":
            part = parse_item({"document": hit.uri}).parts[0]
            assert isinstance(part, DocumentPart)
            name = str(part.source)
        path = Path(name)
        if not self._is_allowed(path):
            return None
        return MediaFile(hit.id, path, hit.modality, hit.page)

    def _is_allowed(self, path: Path) -> bool:
        try:
            resolved = path.resolve()
            roots = (path.parent.resolve(),) if self._roots is None else self._roots
        except (OSError, RuntimeError):  # a loop of symbolic links
            return False
        return any(resolved.is_relative_to(root) for root in roots)

"""What a user may pass in: the grammar of inputs, with no decoding.

A plain ``str`` is always text, because guessing paths or URLs from text would let a query read a
file. Media come as ``pathlib.Path``, ``PIL.Image``, ``bytes``, ``numpy.ndarray``, or inside a dict
with any of the keys ``text``, ``image``, ``video``, ``document``, ``instruction``, where a string
is a path or a URL. A dict is one fused input; a list under ``image`` is several images of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.sniff import HEAD_BYTES, sniff

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = [
    "DOCUMENT_SUFFIXES",
    "IMAGE_SUFFIXES",
    "TEXT_SUFFIXES",
    "VIDEO_SUFFIXES",
    "DocumentPart",
    "ImagePart",
    "Item",
    "ItemLike",
    "MediaSource",
    "Modality",
    "TextPart",
    "VideoPart",
    "parse_item",
]

Modality: TypeAlias = Literal["text", "image", "video", "document"]
MediaSource: TypeAlias = "Path | str | bytes | np.ndarray[Any, Any] | PILImage"
ItemLike: TypeAlias = "str | MediaSource | Mapping[str, Any] | Item"

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
})
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
})
# fmt: on
DOCUMENT_SUFFIXES = frozenset({".pdf"})
TEXT_SUFFIXES = frozenset({".txt", ".md"})

_KEYS = ("text", "image", "video", "document", "instruction")
_PAGE = re.compile(r"#page=(\d+)$")


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words of an item."""

    text: str

    @property
    def label(self) -> str:
        return "<text>"


@dataclass(frozen=True, slots=True)
class ImagePart:
    """One image of an item."""

    source: MediaSource = field(repr=False)

    @property
    def label(self) -> str:
        return _label(self.source, "image")


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A clip. ``fps`` and ``max_frames`` override the model's own frame sampling."""

    source: MediaSource = field(repr=False)
    fps: float | None = None
    max_frames: int | None = None

    @property
    def label(self) -> str:
        return _label(self.source, "video")


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """One page of a document; ``page`` counts from 1, as in ``paper.pdf#page=2``."""

    source: MediaSource = field(repr=False)
    page: int = 1

    @property
    def label(self) -> str:
        return f"{_label(self.source, 'document')}#page={self.page}"


Part: TypeAlias = TextPart | ImagePart | VideoPart | DocumentPart


@dataclass(frozen=True, slots=True)
class Item:
    """One input to embed: its parts in the order given, and the instruction that goes with it.

    ``name`` is what error messages call it; without one, it goes by the sources of its media.
    """

    parts: tuple[Part, ...]
    instruction: str | None = None
    name: str | None = None

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset(_MODALITY[type(part)] for part in self.parts)

    @property
    def label(self) -> str:
        """What the user would recognise it by; media before text."""
        if self.name is not None:
            return self.name
        media = [part.label for part in self.parts if not isinstance(part, TextPart)]
        return " + ".join(media) if media else "<text>"


_MODALITY: dict[type, Modality] = {
    TextPart: "text",
    ImagePart: "image",
    VideoPart: "video",
    DocumentPart: "document",
}


def parse_item(value: ItemLike) -> Item:
    """Read one user input into an :class:`Item` without opening any file.

    Raises:
        InputError: the type, a dict key, a file suffix or a page number is not understood.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item((TextPart(value),))
    if isinstance(value, Mapping):
        return _parse_mapping(value)
    return Item((_parse_media(value),))


def _parse_mapping(value: Mapping[str, Any]) -> Item:
    unknown = [key for key in value if key not in (*_KEYS, "fps", "max_frames")]
    if unknown:
        raise InputError(
            "<dict>", f"unknown key {unknown[0]!r}", f"the keys are {', '.join(_KEYS)}"
        )
    parts: list[Part] = []
    for key, content in value.items():
        if key in ("instruction", "fps", "max_frames") or content is None:
            continue
        if key == "text":
            if not isinstance(content, str):
                raise InputError("<dict>", f"'text' must be a str, not {type(content).__name__}")
            parts.append(TextPart(content))
            continue
        for source in content if isinstance(content, (list, tuple)) else (content,):
            parts.append(_part_for_key(key, source, value))
    instruction = value.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError("<dict>", f"'instruction' must be a str, not {type(instruction).__name__}")
    if not parts:
        raise InputError("<dict>", "holds no text, image, video or document")
    return Item(tuple(parts), instruction)


def _part_for_key(key: str, source: Any, options: Mapping[str, Any]) -> Part:
    if not isinstance(source, (str, Path, bytes, np.ndarray)) and not _is_pil(source):
        raise InputError(
            "<dict>",
            f"{key!r} holds a {type(source).__name__}",
            "give a path, URL, bytes, ndarray or PIL image",
        )
    if key == "image":
        return ImagePart(source)
    if key == "video":
        return VideoPart(source, options.get("fps"), options.get("max_frames"))
    return _document(source)


def _parse_media(value: Any) -> Part:
    if _is_pil(value):
        return ImagePart(value)
    if isinstance(value, np.ndarray):
        return VideoPart(value) if value.ndim == 4 else ImagePart(value)
    if isinstance(value, bytes):
        return _parse_bytes(value)
    if isinstance(value, Path):
        return _parse_path(value)
    raise InputError(
        f"<{type(value).__name__}>",
        "is not an input",
        "give a str for text, or a Path, PIL image, bytes, ndarray or dict for media",
    )


def _parse_path(path: Path) -> Part:
    suffix = Path(_PAGE.sub("", path.name)).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ImagePart(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoPart(path)
    if suffix in DOCUMENT_SUFFIXES:
        return _document(path)
    if suffix in TEXT_SUFFIXES:
        raise InputError(str(path), "is a text file", "give its text: path.read_text()")
    raise InputError(
        str(path),
        f"its suffix {path.suffix!r} says neither image, video nor document",
        "say which: {'image': path}, {'video': path} or {'document': path}",
    )


def _parse_bytes(data: bytes) -> Part:
    """Tell the medium from its first bytes, because nothing else says it here."""
    medium = sniff(data[:HEAD_BYTES])
    if medium == "document":
        return DocumentPart(data)
    return VideoPart(data) if medium == "video" else ImagePart(data)


def _document(source: MediaSource) -> DocumentPart:
    if not isinstance(source, (str, Path)):
        return DocumentPart(source)
    match = _PAGE.search(str(source))
    if match is None:
        return DocumentPart(source)
    page = int(match.group(1))
    if page < 1:
        raise InputError(str(source), "pages count from 1")
    plain = str(source)[: match.start()]
    return DocumentPart(Path(plain) if isinstance(source, Path) else plain, page)


def _is_pil(value: object) -> bool:
    # Without importing pillow: only a PIL image can be an instance of a class from PIL.Image.
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)


def _label(source: MediaSource, kind: str) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return f"<{kind} of {len(source)} bytes>"
    if isinstance(source, np.ndarray):
        return f"<{kind} array {source.shape} {source.dtype}>"
    return f"<PIL image {source.size[0]}x{source.size[1]}>"

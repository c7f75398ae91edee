"""What makes an item the same item: its id, and a hash of its content."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.folder import SourceFile
from mmembed.inputs.items import DocumentPart, Item, MediaSource, TextPart, VideoPart
from mmembed.inputs.source import local_path
from mmembed.search.layout import Location, is_url
from mmembed.search.store import Value

__all__ = ["Identity", "file_fields", "identify", "main_modality", "text_of", "utf8"]


@dataclass(frozen=True, slots=True)
class Identity:
    """An item's own id, the hash of its content, and its fields in the store."""

    id: str
    content_hash: str
    fields: dict[str, Value]


def main_modality(item: Item) -> str:
    """The medium of an item; ``text`` only where there is no other."""
    media = [part for part in item.parts if not isinstance(part, TextPart)]
    if not media:
        return "text"
    return type(media[0]).__name__.removesuffix("Part").lower()


def text_of(item: Item) -> str:
    """The text that an item came with."""
    return "\n".join(part.text for part in item.parts if isinstance(part, TextPart))


def file_fields(source: SourceFile, key: str, part: str, item: Item) -> dict[str, Value]:
    """The fields of an item that is a file or a part of one.

    Raises:
        InputError: the file cannot be read.
    """
    return {
        "modality": main_modality(item),
        "path": key,
        "page": _page(item),
        "content_hash": source.content_hash,
        "size": source.size,
        "mtime_ns": source.mtime_ns,
        "part": part,
    }


def identify(item: Item, location: Location) -> Identity:
    """Identify an item that was passed to the index by itself.

    An item that is one whole image or clip, or one page, in a file is the same as what indexing the
    file's folder would make of it. Any other item is known by the hash of its content.

    Raises:
        InputError: a file it names cannot be read.
    """
    path = _only_file(item)
    if path is not None:
        source = _source_file(path)
        page = _page(item)
        part = "" if page is None else f"#page={page}"
        key = location.key_of(source.path)
        fields = file_fields(source, key, part, item)
        if page is None:
            fields["file_items"] = 1
        return Identity(f"{key}{part}", source.content_hash, fields)
    content_hash = _hash(item)
    fields = {
        "modality": main_modality(item),
        "path": _first_path(item, location),
        "page": _page(item),
        "content_hash": content_hash,
    }
    return Identity(content_hash, content_hash, fields)


def _only_file(item: Item) -> Path | None:
    """The file that the item is, where it is nothing else beside."""
    if len(item.parts) != 1 or item.instruction is not None:
        return None
    part = item.parts[0]
    if isinstance(part, TextPart) or not isinstance(part.source, str | Path):
        return None
    if isinstance(part, VideoPart) and (part.fps or part.max_frames):
        return None
    return None if is_url(str(part.source)) else Path(part.source)


def _source_file(path: Path) -> SourceFile:
    found = local_path(path)
    status = found.stat()
    absolute = found.expanduser().absolute()
    absolute = absolute.resolve() if ".." in absolute.parts else absolute
    return SourceFile(absolute, status.st_size, status.st_mtime_ns)


def _page(item: Item) -> int | None:
    return next((part.page for part in item.parts if isinstance(part, DocumentPart)), None)


def _first_path(item: Item, location: Location) -> str | None:
    for part in item.parts:
        if isinstance(part, TextPart) or not isinstance(part.source, str | Path):
            continue
        source = str(part.source)
        if source.startswith("data:"):
            continue
        return source if is_url(source) else location.key_of(Path(source).absolute())
    return None


def _hash(item: Item) -> str:
    digest = blake2b(digest_size=16)
    for part in item.parts:
        settings: tuple[object, ...] = (type(part).__name__,)
        if isinstance(part, TextPart):
            content = utf8(part.text)
        else:
            content = _content(part.source)
            if isinstance(part, VideoPart):
                settings = (*settings, part.fps, part.max_frames)
            elif isinstance(part, DocumentPart):
                settings = (*settings, part.page)
        # Lengths keep the parts apart: "ab" + "c" is not "a" + "bc".
        digest.update(f"{settings}{len(content)}:".encode())
        digest.update(content)
    digest.update(repr(item.instruction).encode())  # None is not "None"
    return digest.hexdigest()


def utf8(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        InputError: it has lone surrogates, which neither tokenizers nor stores can take.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(ascii(text)[:80], "is not valid Unicode", "fix its encoding") from error


def _content(source: MediaSource) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and is_url(source):
        return utf8(source)
    if isinstance(source, str | Path):
        return _source_file(Path(source)).content_hash.encode()
    array = np.asarray(source)
    return f"{array.shape}{array.dtype}".encode() + array.tobytes()

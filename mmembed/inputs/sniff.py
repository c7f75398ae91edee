"""Tell a medium from its first bytes."""

from __future__ import annotations

from typing import Literal

__all__ = ["HEAD_BYTES", "Medium", "sniff"]

Medium = Literal["image", "video", "document"]

HEAD_BYTES = 16
"""How many leading bytes :func:`sniff` looks at."""

_IMAGE_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
)
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_VIDEO_MAGIC = (b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3")
# The GUID that opens every ASF file (.wmv).
_ASF = b"0&\xb2u\x8ef\xcf\x11"


def sniff(head: bytes) -> Medium | None:
    """The medium whose container starts with these bytes, or None where none is recognised."""
    if head[:5] == b"%PDF-":
        return "document"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in _IMAGE_BRANDS else "video"
    if head.startswith(_IMAGE_MAGIC):
        return "image"
    return "video" if head.startswith((*_VIDEO_MAGIC, _ASF)) else None

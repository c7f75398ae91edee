"""Whether a container is as long as its first bytes declare."""

from __future__ import annotations

__all__ = ["DECLARATION_BYTES", "declared_size"]

DECLARATION_BYTES = 256
"""How many leading bytes :func:`declared_size` looks at."""

_EBML_ID = b"\x1aE\xdf\xa3"
_SEGMENT_ID = b"\x18S\x80g"


def declared_size(head: bytes) -> int | None:
    """The size in bytes that the header of a RIFF (AVI) or Matroska file promises.

    Decoders read a file that was cut short without an error, up to where it ends. MP4 needs no
    such check, because its index is complete or missing.

    Returns:
        The least size of the whole file, or None where the header does not tell.
    """
    if head[:4] == b"RIFF":
        # Some writers leave a zero until they close the file.
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if size else None
    if head[:4] != _EBML_ID:
        return None
    header = _element_size(head, 4)
    if header is None:
        return None
    start = header[0] + header[1]
    if head[start : start + 4] != _SEGMENT_ID:
        return None
    segment = _element_size(head, start + 4)
    return None if segment is None else segment[0] + segment[1]


def _element_size(head: bytes, at: int) -> tuple[int, int] | None:
    """Where an EBML element's data starts, and its size (RFC 8794, section 4)."""
    if at >= len(head) or head[at] == 0:
        return None
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    is_unknown = value == (1 << 7 * width) - 1  # A live stream.
    return None if is_unknown or at + width > len(head) else (at + width, value)

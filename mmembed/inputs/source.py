"""Open a source of bytes, or say why it cannot be opened."""

from __future__ import annotations

import re
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mmembed.errors import InputError
from mmembed.inputs.sniff import HEAD_BYTES, Medium, sniff

__all__ = ["content_name", "local_path", "open_source", "read_head"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_NAMES: dict[Medium, str] = {"image": "an image", "video": "a video", "document": "a PDF"}


def local_path(source: str | Path) -> Path:
    """The regular, non-empty file that ``source`` names.

    Raises:
        InputError: it is a URL, is missing, is a folder or a device, is empty, or cannot be read.
    """
    if isinstance(source, str) and _URL.match(source):
        shown = source if len(source) <= 80 else f"{source[:77]}..."
        raise InputError(shown, "is a URL, and URLs are not fetched", "download it, give the path")
    path = Path(source)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(str(source), "does not exist") from None
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error
    # Opening a pipe or a device could block for ever.
    if not stat.S_ISREG(status.st_mode):
        what = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise InputError(str(source), what, "give the path of a file")
    if status.st_size == 0:
        raise InputError(str(source), "is empty (0 bytes)")
    return path


def open_source(source: str | Path | bytes, label: str) -> BinaryIO:
    """A readable, seekable stream over a file or over bytes.

    Raises:
        InputError: as :func:`local_path`; or there are no bytes.
    """
    if isinstance(source, bytes):
        if not source:
            raise InputError(label, "is empty (0 bytes)")
        return BytesIO(source)
    path = local_path(source)
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(source, error) from error


def unreadable(source: str | Path, error: Exception) -> InputError:
    """The error for a file or folder that the operating system would not let us read."""
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(str(source), f"cannot be read: {reason}")


def read_head(source: str | Path | bytes, label: str) -> bytes:
    """The first bytes of a source, as many as :func:`~mmembed.inputs.sniff.sniff` wants.

    Raises:
        InputError: as :func:`open_source`.
    """
    with open_source(source, label) as stream:
        try:
            return stream.read(HEAD_BYTES)
        except OSError as error:
            raise InputError(label, f"cannot be read: {error.strerror}") from error


def content_name(head: bytes) -> str | None:
    """``"a PDF"`` and the like for the medium that starts with ``head``, for error messages."""
    medium = sniff(head)
    return None if medium is None else _NAMES[medium]

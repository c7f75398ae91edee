"""Reading rows of measuring data; what is missing is named."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from mmembed.errors import InputError

__all__ = ["rows_of"]


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, plain or packed by gzip or xz.

    Raises:
        InputError: the file is missing or a line is no JSON object.
    """
    if not file.is_file():
        raise InputError(str(file), "is not there", "name the folder of measuring data with --data")
    rows = []
    with _OPENERS.get(file.suffix, _plain)(file) as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{file}:{number}", f"is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{file}:{number}", "is no JSON object")
            rows.append(row)
    return rows


def _plain(file: Path) -> IO[str]:
    return file.open(encoding="utf-8")


def _gzip(file: Path) -> IO[str]:
    return gzip.open(file, "rt", encoding="utf-8")


def _xz(file: Path) -> IO[str]:
    return lzma.open(file, "rt", encoding="utf-8")


_OPENERS: Mapping[str, Callable[[Path], IO[str]]] = {".gz": _gzip, ".xz": _xz}

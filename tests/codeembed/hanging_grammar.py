"""What a parse worker runs in tests: parsers that never return, crash, raise or do well."""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any

from codeembed.foreign import foreign_structure


def structure(data: bytes, *arguments: Any) -> Any:
    """Do what the file says."""
    if b"hang" in data:
        # In C, with the interpreter's lock held, as a scanner that loops.
        re.match(r"(?:a+)+$", "a" * 200 + "b")
    if b"crash" in data:
        ctypes.string_at(0)
    if b"raise" in data:
        raise ValueError("no such thing")
    if b"process" in data:
        return os.getpid()
    return foreign_structure(data, *arguments)

"""What a process that serves for days sets for itself, so that its memory stays flat."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h of glibc
_HEAPS = 2
_KERNELS = "64"


def keep_memory_flat() -> None:
    """Let few heaps and few prepared kernels be kept; to be called before any model runs.

    glibc gives threads heaps of their own, eight for each core, and a heap keeps the holes that
    batches of all sizes leave; oneDNN keeps the kernels of the last 1,024 shapes. Together they
    grew for as long as ``benchmarks/load.py`` ran. What the environment says already stands
    (``MALLOC_ARENA_MAX``, ``ONEDNN_PRIMITIVE_CACHE_CAPACITY``), and where the C library is another
    one only the kernels are limited.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _HEAPS)

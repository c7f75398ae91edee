"""Embedding and search of source code, on top of :mod:`mmembed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codeembed.chunk import Chunk, Chunker
    from codeembed.index import CodeIndex
    from codeembed.results import CodeHit, IndexReport

__all__ = ["Chunk", "Chunker", "CodeHit", "CodeIndex", "IndexReport"]

_HOMES = {
    "Chunk": "codeembed.chunk",
    "Chunker": "codeembed.chunk",
    "CodeHit": "codeembed.results",
    "CodeIndex": "codeembed.index",
    "IndexReport": "codeembed.results",
}


def __getattr__(name: str) -> Any:
    # `import codeembed` stays instant: numpy and tree-sitter wait for the first use.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

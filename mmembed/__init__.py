"""mmembed: one model for text, images, video and document pages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmembed.embedder import Embedder as Embedder
    from mmembed.errors import InputError as InputError
    from mmembed.errors import MmembedError as MmembedError
    from mmembed.reranker import Reranker as Reranker
    from mmembed.search.index import Hit as Hit
    from mmembed.search.index import Index as Index

__version__ = "0.1.0"

# Public name -> module. Loaded on first use, so that `import mmembed` stays free of torch.
_PUBLIC = {
    "Embedder": "mmembed.embedder",
    "Hit": "mmembed.search.index",
    "Index": "mmembed.search.index",
    "InputError": "mmembed.errors",
    "MmembedError": "mmembed.errors",
    "Reranker": "mmembed.reranker",
}

__all__ = ["Embedder", "Hit", "Index", "InputError", "MmembedError", "Reranker", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mmembed' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

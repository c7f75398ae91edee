"""How a code index lies in its store, and what a chunk looks like to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from codeembed.chunk import Chunk
from codeembed.tokens import CodeModel
from mmembed.errors import IndexMismatchError
from mmembed.search.store import FieldType

__all__ = ["FIELDS", "check_meta", "chunk_limit", "describe", "embedded_texts"]

# Raised whenever the same file would be cut, or shown to the model, in another way.
_LAYOUT_VERSION = "code-1"

FIELDS: dict[str, FieldType] = {
    "path": "str",
    "language": "str",
    "start_line": "int",
    "end_line": "int",
    "symbol": "str",
    "kind": "str",
    "breadcrumb": "str",
    "symbols": "list[str]",
    "kinds": "list[str]",
    "chunk_hash": "str",  # of breadcrumb and text: what the vector depends on
    "file_hash": "str",  # of the whole file
    "file_chunks": "int",  # how many rows the whole file has
    "file_bytes": "int",
}

# Chunks stay about as long as a screen even where a model reads more.
_MAX_CHUNK_TOKENS = 512
_HEADER_SHARE = 6


def chunk_limit(max_tokens: int) -> int:
    """Tokens of a chunk for a model that reads ``max_tokens``: the breadcrumb needs room too."""
    limit = min(max_tokens, _MAX_CHUNK_TOKENS)
    return limit - limit // _HEADER_SHARE


def embedded_texts(chunks: Sequence[Chunk], model: CodeModel) -> list[str]:
    """What the model reads for each chunk: its breadcrumb and its text, never cut short.

    A breadcrumb that does not fit loses its folders, then its outer parts, then goes.
    """
    chosen = [chunk.text for chunk in chunks]
    waiting = [(row, _headers(chunk.breadcrumb)) for row, chunk in enumerate(chunks)]
    while waiting:
        texts = [f"{headers[0]}\n{chunks[row].text}" for row, headers in waiting]
        counts = model.count_tokens(texts)
        too_long = []
        for (row, headers), text, count in zip(waiting, texts, counts, strict=True):
            if count <= model.max_tokens:
                chosen[row] = text
            elif len(headers) > 1:
                too_long.append((row, headers[1:]))
        waiting = too_long
    return chosen


def _headers(breadcrumb: str) -> list[str]:
    path, *parts = breadcrumb.split(" > ")
    name = path.rsplit("/", 1)[-1]
    last = parts[-1:] or [name]
    return list(dict.fromkeys([breadcrumb, " > ".join([name, *parts]), last[0]]))


def describe(model: CodeModel) -> dict[str, str]:
    """What a new index records about how it was made."""
    return {
        "layout_version": _LAYOUT_VERSION,
        "model_name": model.name,
        "model_fingerprint": model.fingerprint,
        "max_tokens": str(model.max_tokens),
    }


def check_meta(folder: Path, meta: Mapping[str, str], dim: int, model: CodeModel | None) -> None:
    """Refuse an index of another layout, or one that ``model`` (if given) did not make.

    Raises:
        IndexMismatchError: names both, and says what to do.
    """
    rebuild = f"or delete {folder} and index again"
    version = meta.get("layout_version")
    if version != _LAYOUT_VERSION:
        raise IndexMismatchError(
            f"{folder} has layout {version!r}, this release reads {_LAYOUT_VERSION!r}: "
            f"use the release that made it, {rebuild}"
        )
    if model is None:
        return
    made_by = (meta.get("model_fingerprint"), dim, meta.get("max_tokens"))
    if made_by != (model.fingerprint, model.dim, str(model.max_tokens)):
        raise IndexMismatchError(
            f"{folder} was made by model {meta.get('model_name')!r} ({dim} dimensions, "
            f"{meta.get('max_tokens')} tokens, fingerprint {meta.get('model_fingerprint')}), "
            f"not by {model.name!r} ({model.dim} dimensions, {model.max_tokens} tokens, "
            f"fingerprint {model.fingerprint}): open it with the model that made it, {rebuild}"
        )

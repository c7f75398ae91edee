"""How a code index lies in its store, and what a chunk looks like to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from codeembed.database import ChunkRow
from codeembed.tokens import CodeModel
from mmembed.errors import IndexMismatchError

__all__ = [
    "check_layout",
    "check_model",
    "chunk_limit",
    "content_of",
    "describe",
    "describe_model",
    "embedded_texts",
]

# Raised whenever the same file would be cut, or shown to the model, in another way.
_LAYOUT_VERSION = "code-3"

# Chunks stay about as long as a screen even where a model reads more.
_MAX_CHUNK_TOKENS = 512
_HEADER_SHARE = 6


def chunk_limit(max_tokens: int) -> int:
    """Tokens of a chunk for a model that reads ``max_tokens``: the breadcrumb needs room too."""
    limit = min(max_tokens, _MAX_CHUNK_TOKENS)
    return limit - limit // _HEADER_SHARE


def content_of(breadcrumb: str, text: str) -> str:
    """What a chunk's vector depends on: its text under what it is inside of, and the file's name.

    Folders stay out, so that moving a folder costs nothing.
    """
    return f"{_headers(breadcrumb)[0]}\n{text}"


def embedded_texts(chunks: Sequence[ChunkRow], model: CodeModel) -> list[str]:
    """What the model reads for each chunk: a header and its text, never cut short.

    A header that does not fit loses its outer parts, then goes.
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
    return list(dict.fromkeys([" > ".join([name, *parts]), last[0]]))


def describe(name: str, max_tokens: int) -> dict[str, str]:
    """What a new index records about how it was cut."""
    return {
        "layout_version": _LAYOUT_VERSION,
        "model_name": name,
        "max_tokens": str(max_tokens),
    }


def describe_model(model: CodeModel) -> dict[str, str]:
    """What an index records about who makes its vectors."""
    return {"model_fingerprint": model.fingerprint, "dim": str(model.dim)}


def check_layout(folder: Path, meta: Mapping[str, str]) -> None:
    """Refuse an index of another layout.

    Raises:
        IndexMismatchError: names both, and says what to do.
    """
    version = meta.get("layout_version")
    if version != _LAYOUT_VERSION:
        raise IndexMismatchError(
            f"{folder} has layout {version!r}, this release reads {_LAYOUT_VERSION!r}: use the "
            f"release that made it, or delete {folder} and index again"
        )


def check_model(folder: Path, meta: Mapping[str, str], model: CodeModel) -> None:
    """Refuse a model that did not make an index.

    Raises:
        IndexMismatchError: names both, and says what to do.
    """
    made_by = (meta.get("model_fingerprint"), meta.get("dim"), meta.get("max_tokens"))
    given = (model.fingerprint, str(model.dim), str(model.max_tokens))
    unknown = made_by[0] is None and made_by[2] == given[2] and meta["model_name"] == model.name
    if made_by != given and not unknown:
        raise IndexMismatchError(
            f"{folder} was made by model {meta.get('model_name')!r} ({made_by[1]} dimensions, "
            f"{made_by[2]} tokens, fingerprint {made_by[0]}), not by {model.name!r} "
            f"({model.dim} dimensions, {model.max_tokens} tokens, fingerprint "
            f"{model.fingerprint}): open it with the model that made it, or delete {folder} and "
            "index again"
        )

"""What a hit is called on the page: never by a path outside what may be shown."""

from __future__ import annotations

from pathlib import Path

from mmembed.search.results import Hit
from mmembed.server.library import Library, MediaFile

__all__ = ["name_of"]


def name_of(hit: Hit, file: MediaFile | None, library: Library) -> tuple[str, str]:
    """Name and folder of a hit: ``file.pdf, page 3`` and ``papers/2020``."""
    name, folder = hit.id, ""
    if file is not None:
        name, folder = file.path.name, library.folder_of(file.path)
    elif hit.uri is not None:
        name = Path(hit.uri.partition("#")[0]).name
    if hit.page is not None:
        name = f"{name}, page {hit.page}"
    return name, folder

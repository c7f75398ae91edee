"""How an index lies in its store: where it is, its fields, and the model that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmembed.errors import IndexMismatchError
from mmembed.search.model import EmbeddingModel
from mmembed.search.store import FieldType, Record, Value

__all__ = [
    "FIELDS",
    "Location",
    "check_model",
    "describe_model",
    "is_url",
    "locate",
    "user_metadata",
]

FOLDER_NAME = ".mmembed"
_LAYOUT_VERSION = "1"

# Rows that mirror a file on disk have a `part`; rows added as single items have none.
FIELDS: dict[str, FieldType] = {
    "modality": "str",  # text, image, video or document
    "path": "str",  # of the media: relative to the indexed folder if inside it, else absolute; URL
    "page": "int",  # from 1
    "content_hash": "str",  # of the file, or of the item where it is no file
    "size": "int",  # of the file, in bytes
    "mtime_ns": "int",  # of the file
    "part": "str",  # which part of the file: "", "#page=3", "#p=2"
    "file_items": "int",  # on the last part of a file only: how many it has
}

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")


def is_url(source: str) -> bool:
    """Whether a media source in a string is a URL rather than a path."""
    return _URL.match(source) is not None


@dataclass(frozen=True, slots=True)
class Location:
    """Where an index lives.

    Attributes:
        folder: the folder of the store.
        base: the folder of media it sits in, or None; files below it are kept by relative path, so
            that the whole may be moved.
    """

    folder: Path
    base: Path | None

    def key_of(self, path: Path) -> str:
        """The path of a file as the index keeps it: with ``/``, relative to ``base`` if inside."""
        if self.base is not None and path.is_relative_to(self.base):
            return path.relative_to(self.base).as_posix()
        return path.as_posix()

    def path_of(self, key: str) -> str:
        """The absolute path (or the URL) behind a key."""
        return key if self.base is None or is_url(key) else str(self.base / key)


def locate(path: str | Path, exists: bool) -> Location:
    """Where the index behind ``path`` is, or would be.

    Args:
        path: a folder of media, whose index is ``.mmembed`` inside it; or the folder of an index.
        exists: whether ``path`` itself holds a store.
    """
    folder = Path(path).expanduser().absolute()
    if folder.name == FOLDER_NAME:
        return Location(folder, folder.parent)
    if exists or not folder.is_dir() or not _has_foreign_files(folder):
        return Location(folder, None)
    return Location(folder / FOLDER_NAME, folder)


def _has_foreign_files(folder: Path) -> bool:
    own = ("writer.lock", "writer.pid", "items.lance")
    return any(entry.name not in own for entry in folder.iterdir())


def describe_model(model: EmbeddingModel) -> dict[str, str]:
    """What a new index records about the model that fills it."""
    return {
        "layout_version": _LAYOUT_VERSION,
        "model_name": model.name,
        "model_fingerprint": model.fingerprint,
    }


def check_model(
    location: Location, meta: Mapping[str, str], dim: int, model: EmbeddingModel | None
) -> None:
    """Refuse an index of another layout, or made by another model than ``model`` (if given).

    Raises:
        IndexMismatchError: names both, and says what to do.
    """
    where = location.folder
    rebuild = f"or delete {where} and index again"
    version = meta.get("layout_version")
    if version != _LAYOUT_VERSION:
        raise IndexMismatchError(
            f"{where} has layout {version}, this release reads layout {_LAYOUT_VERSION}: "
            f"use the release that made it, {rebuild}"
        )
    if model is None:
        return
    made_by, fingerprint = meta.get("model_name"), meta.get("model_fingerprint")
    if (fingerprint, dim) != (model.fingerprint, model.dim):
        raise IndexMismatchError(
            f"{where} was made by model {made_by!r} ({dim} dimensions, fingerprint {fingerprint}), "
            f"not by {model.name!r} ({model.dim} dimensions, fingerprint {model.fingerprint}): "
            f"open it with the model that made it, {rebuild}"
        )


def user_metadata(record: Record) -> dict[str, Value]:
    """The fields of a record that the user gave it."""
    return {name: value for name, value in record.fields.items() if name not in FIELDS}

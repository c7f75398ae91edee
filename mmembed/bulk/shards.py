"""Cutting the input into shards: pieces of work that have a name and can be done alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mmembed.errors import ConfigError, InputError
from mmembed.inputs.folder import SUFFIXES, scan

__all__ = ["Shard", "cut", "located"]

_JSONL = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_PARQUET = (".parquet", ".pq")
_TAR = (".tar",)
# A shard is what a killed worker does again: a minute or so, not an hour.
_JSONL_BYTES = 8_000_000
_PARQUET_ROWS = 20_000
_FILES = 500


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of the input.

    Attributes:
        kind: jsonl, parquet, tar or files.
        source: URI or path of the file; for ``files``, of the folder.
        size: bytes of the file.
        stamp: time of its last change, in nanoseconds, where the file system tells.
        start: first byte (jsonl), or first row group (parquet).
        stop: one past the last; 0 for the whole file.
        files: paths below ``source``, for ``files``.
    """

    kind: str
    source: str
    size: int = 0
    stamp: int = 0
    start: int = 0
    stop: int = 0
    files: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The same for the same piece of the same content, and good as a file name."""
        return blake2b(json.dumps(asdict(self)).encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Shard:
        """What ``asdict`` gave, read back from JSON."""
        return cls(**{**values, "files": tuple(values["files"])})


def located(source: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI (``s3://``, ``gs://``, ``file://`` …), and the path in it.

    Raises:
        InputError: the URI is of no known kind.
    """
    if "://" not in source:
        return pafs.LocalFileSystem(), str(Path(source).expanduser().absolute())
    try:
        found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(source, f"cannot be opened: {error}") from error
    return found


def cut(source: str) -> list[Shard]:
    """The shards of a file or folder, always in the same order.

    A folder that holds data files (JSONL, Parquet, tar) is those files; any other is its media.

    Raises:
        InputError: there is nothing of that name, or nothing in it that can be embedded.
    """
    system, path = located(source)
    info = system.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise InputError(source, "does not exist")
    if info.type == pafs.FileType.File:
        return list(_of_file(system, info, source, named=True))
    selector = pafs.FileSelector(path, recursive=True)
    below = sorted(system.get_file_info(selector), key=lambda each: each.path)
    files = [each for each in below if each.type == pafs.FileType.File]
    root = source.rstrip("/")
    shards = [
        shard
        for each in files
        for shard in _of_file(system, each, f"{root}{each.path.removeprefix(path.rstrip('/'))}")
    ]
    if not shards and "://" not in source:
        shards = list(_of_media(Path(path)))
    if not shards:
        raise InputError(source, "holds no JSONL, Parquet, tar or media files")
    return shards


def _of_file(
    system: pafs.FileSystem, info: pafs.FileInfo, source: str, named: bool = False
) -> Iterator[Shard]:
    name = PurePosixPath(info.path).name.lower()
    stamp = info.mtime_ns or 0
    if name.endswith(_JSONL):
        step = info.size if name.endswith(".gz") else _JSONL_BYTES
        for start in range(0, max(info.size, 1), max(step, 1)):
            stop = 0 if start + step >= info.size else start + step
            yield Shard("jsonl", source, info.size, stamp, start, stop)
    elif name.endswith(_PARQUET):
        yield from _of_parquet(system, info, source, stamp)
    elif name.endswith(_TAR):
        yield Shard("tar", source, info.size, stamp)
    elif named and "://" not in source and PurePosixPath(name).suffix in SUFFIXES:
        yield Shard("files", str(Path(info.path).parent), files=(Path(info.path).name,))
    elif named:
        raise InputError(source, "is no JSONL, Parquet, tar or media file")


def _of_parquet(
    system: pafs.FileSystem, info: pafs.FileInfo, source: str, stamp: int
) -> Iterator[Shard]:
    try:
        meta = pq.read_metadata(info.path, filesystem=system)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{source}: is no Parquet file: {error}") from error
    start = rows = 0
    for group in range(meta.num_row_groups):
        rows += meta.row_group(group).num_rows
        if rows >= _PARQUET_ROWS or group == meta.num_row_groups - 1:
            yield Shard("parquet", source, info.size, stamp, start, group + 1)
            start, rows = group + 1, 0


def _of_media(folder: Path) -> Iterator[Shard]:
    names = [str(each.path.relative_to(folder)) for each in scan(folder, on_error=lambda _: None)]
    for start in range(0, len(names), _FILES):
        yield Shard("files", str(folder), files=tuple(names[start : start + _FILES]))

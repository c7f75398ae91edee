"""Cutting the input into shards: pieces of work that have a name and can be done alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mmembed.errors import ConfigError, InputError
from mmembed.inputs.folder import SUFFIXES, scan

__all__ = ["Shard", "cut", "located", "remote"]

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


def remote(source: str) -> bool:
    """Whether it is a URI, and no path."""
    return "://" in source


def located(source: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI (``s3://``, ``gs://``, ``file://`` …), and the path in it.

    Raises:
        InputError: the URI is of no known kind.
    """
    if not remote(source):
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
    top = f"{path.rstrip('/')}/"
    files = {each.path.removeprefix(top): each for each in below if each.type == pafs.FileType.File}
    shards = [
        shard
        for name, each in files.items()
        for shard in _of_file(system, each, _below(source, name))
    ]
    if not shards:
        shards = list(_of_media(source, _remote_media(files) if remote(source) else _media(path)))
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
    elif named and PurePosixPath(name).suffix in SUFFIXES:
        file = PurePosixPath(info.path).name
        folder = _above(source, file) if remote(source) else str(Path(info.path).parent)
        yield Shard("files", folder, files=(file,))
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


def _of_media(source: str, names: Sequence[str]) -> Iterator[Shard]:
    folder = source if remote(source) else str(Path(source).expanduser().absolute())
    for start in range(0, len(names), _FILES):
        yield Shard("files", folder, files=tuple(names[start : start + _FILES]))


def _media(path: str) -> list[str]:
    folder = Path(path)
    return [str(each.path.relative_to(folder)) for each in scan(folder, on_error=lambda _: None)]


def _remote_media(names: Iterable[str]) -> list[str]:
    """As in a local folder: what is hidden, and what is of another kind, is passed over."""
    paths = [PurePosixPath(name) for name in names]
    return [
        str(path)
        for path in paths
        if path.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in path.parts)
    ]


def _below(source: str, name: str) -> str:
    """A file in a folder; the settings at the end of a URI stay there."""
    if not remote(source):
        return f"{source.rstrip('/')}/{name}"
    folder, mark, settings = source.partition("?")
    return f"{folder.rstrip('/')}/{name}{mark}{settings}"


def _above(source: str, name: str) -> str:
    """The folder of a file."""
    path, mark, settings = source.partition("?")
    return f"{path.removesuffix(name).rstrip('/')}{mark}{settings}"

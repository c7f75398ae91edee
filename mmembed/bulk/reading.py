"""From a shard to its rows, lazily; a row that cannot be read is an error in its place."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mmembed.bulk.shards import Shard, located, remote
from mmembed.errors import InputError
from mmembed.gpte.data.sources import members_of
from mmembed.inputs.folder import SourceFile, items_of
from mmembed.inputs.items import (
    DOCUMENT_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Item,
    TextPart,
    parse_item,
)

__all__ = ["BadRow", "Row", "rows_of"]

_MEDIA = ("image", "video", "document")
_PARTS = ("text", *_MEDIA, "instruction")
_MAX_LINE = 64_000_000
_MAX_MEMBER = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One item to embed.

    Attributes:
        id: its own ``id``, or where it stands in the input.
        item: what to embed.
        path: of the file or page it is, or None.
        metadata: what else the row says.
    """

    id: str
    item: Item
    path: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that is no item, and why."""

    id: str
    error: InputError


def rows_of(shard: Shard) -> Iterator[Row | BadRow]:
    """The rows of a shard, in their order.

    Raises:
        InputError: the file itself is gone, has changed, or cannot be read.
    """
    readers = {"jsonl": _jsonl, "parquet": _parquet, "tar": _tar, "files": _files}
    try:
        if shard.kind != "files":
            _check_unchanged(shard)
        yield from readers[shard.kind](shard)
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = f"cannot be read: {type(error).__name__}"
        raise InputError(shard.source, reason) from error


def _check_unchanged(shard: Shard) -> None:
    system, path = located(shard.source)
    info = system.get_file_info(path)
    if (info.size, info.mtime_ns or 0) != (shard.size, shard.stamp):
        raise InputError(shard.source, "has changed since the run began", "use a new output folder")


def _row(key: str, values: Mapping[str, Any], base: Path | None) -> Row | BadRow:
    key = str(values["id"]) if values.get("id") not in (None, "") else key
    given = {
        name: _source(name, value, base)
        for name in _PARTS
        if (value := values.get(name)) is not None
    }
    metadata = {name: value for name, value in values.items() if name not in (*_PARTS, "id")}
    try:
        item = parse_item(given)
    except InputError as error:
        return BadRow(key, InputError(key, error.reason, error.hint))
    path = next((str(given[name]) for name in _MEDIA if isinstance(given.get(name), str)), None)
    return Row(key, item, path, metadata)


def _source(name: str, value: Any, base: Path | None) -> Any:
    """A medium as an item takes it: paths from where the file lies, bytes out of a struct."""
    if isinstance(value, Mapping):  # the `Image` of Hugging Face's datasets
        value = value.get("bytes") or value.get("path")
    if name in _MEDIA and isinstance(value, str) and base is not None and not remote(value):
        return value if value.startswith("data:") else str(base / value)
    return value


def _base(shard: Shard) -> Path | None:
    return None if remote(shard.source) else Path(located(shard.source)[1]).parent


def _jsonl(shard: Shard) -> Iterator[Row | BadRow]:
    system, path = located(shard.source)
    name, base = PurePosixPath(path).name, _base(shard)
    with system.open_input_file(path) as raw:
        zipped = name.endswith(".gz")
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw) if zipped else io.BufferedReader(raw))
        if shard.start:
            # A line belongs to the shard in which it begins.
            stream.seek(shard.start - 1)
            stream.readline(_MAX_LINE)
        while not shard.stop or stream.tell() < shard.stop:
            at = stream.tell()
            line = stream.readline(_MAX_LINE)
            if not line:
                return
            if not line.strip():
                continue
            key = f"{name}@{at}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRow(key, InputError(key, f"is no JSON: {error}"))
                continue
            if not isinstance(values, dict):
                yield BadRow(key, InputError(key, "is no JSON object"))
                continue
            yield _row(key, values, base)


def _parquet(shard: Shard) -> Iterator[Row | BadRow]:
    system, path = located(shard.source)
    name, base = PurePosixPath(path).name, _base(shard)
    with pq.ParquetFile(path, filesystem=system) as file:
        for group in range(shard.start, shard.stop):
            at = 0
            for batch in file.iter_batches(256, row_groups=[group]):
                for values in batch.to_pylist():
                    yield _row(f"{name}@{group}.{at}", values, base)
                    at += 1


def _tar(shard: Shard) -> Iterator[Row | BadRow]:
    """WebDataset: files of one sample have one name up to the first dot, and stand together."""
    system, path = located(shard.source)
    name = PurePosixPath(path).name
    with (
        system.open_input_stream(path) as raw,
        tarfile.open(fileobj=cast(BinaryIO, raw), mode="r|*") as archive,
    ):
        key, files = "", dict[str, bytes]()
        for member in members_of(archive):
            folder, _, last = member.name.rpartition("/")
            stem, _, suffix = last.partition(".")
            here = f"{folder}/{stem}" if folder else stem
            if not member.isfile() or last.startswith("."):
                continue
            if here != key and files:
                yield _sample(f"{name}/{key}", files)
                files = {}
            key = here
            if member.size > _MAX_MEMBER:
                reason = f"{member.name} is larger than {_MAX_MEMBER / 1e9:g} GB"
                yield BadRow(f"{name}/{key}", InputError(f"{name}/{key}", reason))
                continue
            content = archive.extractfile(member)
            files[suffix.lower()] = b"" if content is None else content.read()
        if files:
            yield _sample(f"{name}/{key}", files)


def _sample(key: str, files: Mapping[str, bytes]) -> Row | BadRow:
    values: dict[str, Any] = {}
    try:
        for suffix, content in files.items():
            last = f".{suffix.rpartition('.')[2]}"
            if last in IMAGE_SUFFIXES:
                values["image"] = content
            elif last in VIDEO_SUFFIXES:
                values["video"] = content
            elif last in DOCUMENT_SUFFIXES:
                values["document"] = content
            elif last == ".json":
                found = json.loads(content)
                values |= {name: each for name, each in found.items() if name not in _PARTS}
            elif last in (".txt", ".text", ".caption"):
                values["caption"] = content.decode("utf-8")
    except (ValueError, AttributeError, RecursionError) as error:
        return BadRow(key, InputError(key, f"its .json or .txt cannot be read: {error}"))
    if not any(name in values for name in _MEDIA) and "caption" in values:
        values["text"] = values.pop("caption")  # a sample of text alone
    values.pop("id", None)  # ids of many archives may be the same
    return _row(key, values, None)


def _files(shard: Shard) -> Iterator[Row | BadRow]:
    system, folder = located(shard.source)
    here = isinstance(system, pafs.LocalFileSystem)
    scheme = "" if here else f"{shard.source.partition('://')[0]}://"
    for name in shard.files:
        path = f"{folder.rstrip('/')}/{name}"
        try:
            items = _items(Path(path)) if here else _stored_items(system, path)
            for suffix, item in items:
                yield Row(f"{name}{suffix}", item, f"{scheme}{path}{suffix}")
        except InputError as error:
            yield BadRow(name, error)
        except OSError as error:
            yield BadRow(
                name, InputError(name, f"cannot be read: {error.strerror or type(error).__name__}")
            )


def _items(path: Path) -> Iterator[tuple[str, Item]]:
    status = path.stat()
    return items_of(SourceFile(path, status.st_size, status.st_mtime_ns))


def _stored_items(system: pafs.FileSystem, path: str) -> Iterator[tuple[str, Item]]:
    """The items of a file in an object store; they hold its bytes, for it is here only now."""
    with system.open_input_stream(path) as stream:
        content = stream.read()
    with NamedTemporaryFile(suffix=PurePosixPath(path).suffix) as copy:
        copy.write(content)
        copy.flush()
        for suffix, item in _items(Path(copy.name)):
            parts = tuple(
                part if isinstance(part, TextPart) else replace(part, source=content)
                for part in item.parts
            )
            yield suffix, replace(item, parts=parts, name=f"{path}{suffix}")

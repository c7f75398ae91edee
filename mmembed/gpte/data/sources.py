"""Raw rows of files and data sets, one at a time, each with the place it came from."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmembed.errors import InputError, MissingDependencyError

__all__ = [
    "WHOLE",
    "Place",
    "RawRow",
    "Share",
    "files_of",
    "fingerprint_of",
    "listing_of",
    "members_of",
    "raw_rows",
]


class Place(NamedTuple):
    """Where a row stands: line ``number`` from 1 in a text file, row or sample elsewhere."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


class RawRow(NamedTuple):
    """A row's fields by name; ``broken`` says why there are none."""

    place: Place
    fields: dict[str, Any]
    broken: str = ""


class Share(NamedTuple):
    """What one of several processes reads: the part ``number`` of ``of`` equal ones."""

    number: int = 0
    of: int = 1

    def count(self, whole: int) -> int:
        """How many of ``whole`` things are in it."""
        return len(range(self.number, whole, self.of))


WHOLE = Share()


def raw_rows(path: str, share: Share = WHOLE) -> Iterator[RawRow]:
    """The rows of a source in a fixed order, never more than a block of them in memory.

    Args:
        path: a file, glob or folder of ``.jsonl`` (``.gz``, ``.xz``), ``.parquet`` and ``.tar``
            files, or ``hf://NAME[:SPLIT]``.
        share: the rows to give: whole files where there are enough for all shares, so that no
            other file is opened, else every so many-th row.

    Raises:
        InputError: there is no such file, it is of another kind, or it is damaged.
        MissingDependencyError: Hugging Face data sets without ``datasets``.
    """
    if path.startswith("hf://"):
        yield from islice(_hugging_face(path), share.number, None, share.of)
        return
    files = files_of(path)
    if len(files) >= share.of:
        yield from _rows_of(files[share.number :: share.of])
    else:
        yield from islice(_rows_of(files), share.number, None, share.of)


def _rows_of(files: list[Path]) -> Iterator[RawRow]:
    for file in files:
        try:
            yield from _reader_of(file)(file)
        except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(str(file), f"cannot be read: {error}", "is the file whole?") from error


def files_of(path: str) -> list[Path]:
    """The files of a source, sorted by name.

    Raises:
        InputError: there are none.
    """
    at = Path(path)
    if at.is_file():
        return [at]
    if at.is_dir():
        found = [file for file in sorted(at.rglob("*")) if file.is_file() and _kind(file)]
    else:
        # Split a glob into its fixed folder and the pattern below it.
        fixed = Path(at.anchor)
        parts = list(at.parts[1:] if at.anchor else at.parts)
        while len(parts) > 1 and not any(mark in parts[0] for mark in "*?["):
            fixed /= parts.pop(0)
        found = sorted(file for file in fixed.glob("/".join(parts)) if file.is_file())
    if not found:
        hint = "paths are relative to the folder you run in"
        raise InputError(path, "there is no such file, and no file matches", hint)
    return found


def fingerprint_of(path: str) -> str:
    """A hash of a source's content, so that a cache notices any change to it."""
    digest = hashlib.blake2b(digest_size=16)
    if path.startswith("hf://"):
        digest.update(f"{path} {getattr(_load(path), '_fingerprint', '')}".encode())
        return digest.hexdigest()
    for file in files_of(path):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def listing_of(path: str) -> str:
    """Names and sizes of a source's files, where they are too long to read for a hash."""
    if path.startswith("hf://"):
        return path
    return "; ".join(f"{file.name} {file.stat().st_size}" for file in files_of(path))


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".xz"):
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return {".jsonl": "jsonl", ".parquet": "parquet", ".tar": "tar"}.get(last, "")


def _reader_of(file: Path) -> Callable[[Path], Iterator[RawRow]]:
    readers = {"jsonl": _jsonl, "parquet": _parquet, "tar": _webdataset}
    kind = _kind(file)
    if not kind:
        raise InputError(
            str(file), "is of no known kind", "give .jsonl, .jsonl.gz, .jsonl.xz, .parquet or .tar"
        )
    return readers[kind]


def _jsonl(file: Path) -> Iterator[RawRow]:
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(file.suffix.lower(), open)(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = Place(str(file), number)
            try:
                fields = json.loads(line)
            except ValueError as error:
                yield RawRow(place, {}, f"broken JSON: {error}")
                continue
            if isinstance(fields, dict):
                yield RawRow(place, fields)
            else:
                kind = type(fields).__name__
                yield RawRow(place, {}, f"a row is a JSON object, and this is a {kind}")


def _parquet(file: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield RawRow(Place(str(file), number), fields)
    except pa.ArrowException as error:
        raise InputError(str(file), f"is no whole Parquet file: {error}") from error


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive as they come, none of them kept in memory."""
    for member in archive:
        archive.members.clear()  # type: ignore[attr-defined]  # of which it keeps a list
        yield member


def _webdataset(file: Path) -> Iterator[RawRow]:
    """Samples of a WebDataset tar: neighbours of one stem, ``KEY.json`` and ``KEY.FIELD.txt``.

    Any other member is a field of bytes under its extension: ``KEY.jpg`` is the field ``jpg``.
    """
    key, fields, number, broken = "", dict[str, Any](), 0, ""
    with tarfile.open(file, "r|*") as archive:
        for member in members_of(archive):
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            this = f"{folder}/{stem}"
            if this != key:
                if number:
                    yield RawRow(Place(str(file), number), fields, broken)
                key, fields, broken = this, {"__key__": this.lstrip("/")}, ""
                number += 1
            kind = extension.rpartition(".")[2].lower()
            try:
                if kind == "json":
                    found = json.loads(stream.read())
                    fields.update(found if isinstance(found, dict) else {extension: found})
                elif kind in ("txt", "text", "cls"):
                    fields[extension.rpartition(".")[0] or extension] = stream.read().decode()
                else:
                    fields[extension] = stream.read()  # a medium, for whoever reads those
            except ValueError as error:
                broken = f"{member.name}: {error}"
    if number:
        yield RawRow(Place(str(file), number), fields, broken)


def _load(path: str) -> Any:
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MissingDependencyError("reading Hugging Face data sets", "train") from None
    name, _, split = path.removeprefix("hf://").partition(":")
    try:
        return datasets.load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the hub raises a family of its own, all meaning: not there
        raise InputError(path, f"cannot be loaded: {error}", "write hf://NAME:SPLIT") from error


def _hugging_face(path: str) -> Iterator[RawRow]:
    for number, fields in enumerate(_load(path), start=1):
        yield RawRow(Place(path, number), dict(fields))

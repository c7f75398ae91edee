"""A bulk job on disk: its settings, its shards, and which of them are done.

    OUTPUT/job.json            settings and shards, written once
    OUTPUT/model.json          fingerprint of the model, written by the first worker
    OUTPUT/parts/NAME.parquet  vectors of one shard
    OUTPUT/errors/NAME.parquet rows of it that could not be embedded, where there are any
    OUTPUT/done/NAME.json      counts of it; written last, so that a shard without is done again
    OUTPUT/leases/NAME.lock    held by the worker that is at it

Every file comes to be under another name and is renamed when whole.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mmembed.bulk.shards import Shard
from mmembed.errors import ConfigError, IndexMismatchError

__all__ = ["Counts", "Job", "Settings", "replacing"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the vectors depend on, beside input and model.

    Attributes:
        model: what ``Embedder.from_pretrained`` loads.
        role: side of the search.
        dim: dimensions kept; 0 for all.
        dtype: ``float16`` or ``float32``.
        max_error_rate: share of bad rows above which a run stops.
    """

    model: str = "mini"
    role: str = "document"
    dim: int = 0
    dtype: str = "float16"
    max_error_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise ConfigError(f"dtype {self.dtype!r}: use float16 or float32")
        if self.role not in ("query", "document"):
            raise ConfigError(f"role {self.role!r}: use query or document")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a shard, or of several.

    Attributes:
        rows: vectors written.
        errors: rows that could not be embedded.
        seconds: spent on them by their worker.
    """

    rows: int = 0
    errors: int = 0
    seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows, self.errors + other.errors, self.seconds + other.seconds
        )


@dataclass(frozen=True)
class Job:
    """A job in a folder."""

    folder: Path
    settings: Settings
    shards: Sequence[Shard]

    @classmethod
    def start(cls, folder: Path, settings: Settings, shards: Sequence[Shard]) -> Job:
        """Begin a job, or go on with the one that the folder holds.

        Raises:
            ConfigError: the folder holds a job with other settings or another input, or files of
                another kind.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "job.json"
        if not file.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: is not empty and holds no job: give a new folder")
        for name in ("parts", "errors", "done", "leases"):
            (folder / name).mkdir(exist_ok=True)
        wanted = {
            "version": _VERSION,
            "settings": asdict(settings),
            "shards": [asdict(shard) for shard in shards],
        }
        if not _created(file, json.dumps(wanted, indent=1)):
            found = json.loads(file.read_text(encoding="utf-8"))
            wanted = json.loads(json.dumps(wanted))
            for name in ("version", "settings", "shards"):
                if found[name] != wanted[name]:
                    raise ConfigError(
                        f"{folder}: holds a job with other {name}: "
                        "ask for the same again to go on with it, or give a new folder"
                    )
        return cls(folder, settings, tuple(shards))

    @classmethod
    def open(cls, folder: Path) -> Job:
        """The job that a folder holds.

        Raises:
            ConfigError: it holds none.
        """
        file = folder / "job.json"
        if not file.exists():
            raise ConfigError(f"{folder}: holds no bulk job")
        found = json.loads(file.read_text(encoding="utf-8"))
        shards = tuple(Shard.of(each) for each in found["shards"])
        return cls(folder, Settings(**found["settings"]), shards)

    def agree_on(self, fingerprint: str) -> None:
        """Note the model's fingerprint, or hold it to the one that is noted.

        Raises:
            IndexMismatchError: other vectors of this job came from another model.
        """
        file = self.folder / "model.json"
        if not _created(file, json.dumps({"fingerprint": fingerprint})):
            noted = json.loads(file.read_text(encoding="utf-8"))["fingerprint"]
            if noted != fingerprint:
                raise IndexMismatchError(
                    f"{self.folder} holds vectors of model {noted}, not of {fingerprint}: "
                    "give a new folder"
                )

    def part(self, shard: Shard) -> Path:
        """The file of a shard's vectors."""
        return self.folder / "parts" / f"{shard.name}.parquet"

    def errors(self, shard: Shard) -> Path:
        """The file of what a shard's inputs were refused for."""
        return self.folder / "errors" / f"{shard.name}.parquet"

    def counts(self, shard: Shard) -> Counts | None:
        """What became of a shard; None while it is not done."""
        try:
            text = (self.folder / "done" / f"{shard.name}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Counts(**json.loads(text))

    def done_names(self) -> set[str]:
        """Names of the shards that are done."""
        return {file.stem for file in (self.folder / "done").glob("[!.]*.json")}

    def finish(self, shard: Shard, counts: Counts) -> None:
        """Mark a shard as done; its files are in place."""
        with replacing(self.folder / "done" / f"{shard.name}.json") as temporary:
            temporary.write_text(json.dumps(asdict(counts)), encoding="utf-8")

    def total(self) -> tuple[int, Counts]:
        """How many shards are done, and their counts."""
        done = self.done_names()
        found = [
            counts
            for shard in self.shards
            if shard.name in done and (counts := self.counts(shard)) is not None
        ]
        return len(found), sum(found, Counts())

    @contextmanager
    def lease(self, shard: Shard) -> Iterator[bool]:
        """Hold a shard for oneself; False if another worker holds it. A dead one holds nothing."""
        lock = FileLock(self.folder / "leases" / f"{shard.name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``target`` if all goes well and is gone otherwise."""
    # Not by tempfile, whose files no other user of a shared folder may read.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _created(file: Path, text: str) -> bool:
    """Write a file that must not be there; False if it is. Never is half of it seen."""
    if file.exists():
        return False
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True

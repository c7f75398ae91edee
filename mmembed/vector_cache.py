"""Embeddings kept on disk by the content of what was embedded, so that nothing is encoded twice."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.encoded import Encoded, SparseVector
from mmembed.errors import InputError
from mmembed.inputs.items import DocumentPart, ItemLike, Part, TextPart, VideoPart, parse_item

if TYPE_CHECKING:
    from mmembed.adapters import TaskAdapters

__all__ = ["VectorCache"]

_CHUNK = 256


class VectorCache:
    """A file of embeddings; several processes may use it at once.

    An entry is found by the model's fingerprint, the settings of the call, and the content of the
    item: text, the bytes of files, pixels. Nothing is ever thrown out: delete the file to start
    anew.

    Args:
        file: made if it is not there.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file).expanduser()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB)"
            )

    def __len__(self) -> int:
        with self._connected() as connection:
            (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        return int(count)

    def stream(
        self,
        items: Iterable[ItemLike],
        encode: Callable[..., Iterator[Encoded]],
        tasks: Callable[[int], str] | None,
        settings: str,
        adapters: TaskAdapters | None = None,
    ) -> Iterator[Encoded]:
        """What ``encode`` gives, from the file where it holds it; new results are kept.

        Args:
            encode: embeds items, each under ``tasks`` of its position among them.
            tasks: the task adapter of the item at a position.
            settings: what else an embedding depends on beside its item and its task.
            adapters: the task adapters.
        """
        versions: dict[str, str] = {"": ""}

        def about(position: int) -> str:
            task = tasks(position) if tasks is not None else ""
            if task not in versions:
                assert adapters is not None
                versions[task] = _version(adapters, task)
            return f"{settings}|{task}|{versions[task]}"

        stream = iter(items)
        first = 0
        while chunk := list(islice(stream, _CHUNK)):
            keys = [_key(item, about(first + i)) for i, item in enumerate(chunk)]
            known = self._read([key for key in keys if key is not None])
            missing = [i for i, key in enumerate(keys) if key is None or key not in known]
            told = None if tasks is None else [tasks(first + i) for i in missing]
            made = encode(
                [chunk[i] for i in missing], tasks=None if told is None else told.__getitem__
            )
            fresh = {missing[one.position]: one for one in made}
            self._write(
                (key, one) for i, one in fresh.items() if (key := keys[i]) and one.error is None
            )
            for i, key in enumerate(keys):
                found = fresh[i] if i in fresh else known[key]  # type: ignore[index]
                error = found.error and found.error.at(first + i)
                yield replace(found, position=first + i, error=error)
            first += len(chunk)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Encoded]:
        found = {}
        with self._connected() as connection:
            for key in set(keys):
                row = connection.execute(
                    "SELECT value FROM entries WHERE key = ?", (key,)
                ).fetchone()
                if row is not None:
                    found[key] = _unpacked(row[0])
        return found

    def _write(self, entries: Iterable[tuple[bytes, Encoded]]) -> None:
        rows = [(key, _packed(one)) for key, one in entries]
        if rows:
            with self._connected() as connection:
                connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=60.0)


def _version(adapters: TaskAdapters, task: str) -> str:
    """A hash of an adapter's tensors: another adapter may come under the same name."""
    if task not in adapters.names:  # a task of a head, which the settings know
        return ""
    digest = hashlib.blake2b(digest_size=12)
    for parameter in adapters.parameters(task):
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _key(value: ItemLike, settings: str) -> bytes | None:
    """None for what cannot be read: the encoder will say what is wrong with it."""
    try:
        item = parse_item(value)
        digest = hashlib.blake2b(settings.encode(), digest_size=24)
        digest.update(f"|{item.instruction!r}".encode())
        for part in item.parts:
            digest.update(_content(part))
    except (InputError, OSError):
        return None
    return digest.digest()


def _content(part: Part) -> bytes:
    about = [type(part).__name__]
    if isinstance(part, TextPart):
        body = part.text.encode("utf-8", "surrogatepass")
    else:
        if isinstance(part, DocumentPart):
            about.append(str(part.page))
        if isinstance(part, VideoPart):
            about += [str(part.fps), str(part.max_frames)]
        body = _bytes_of(part.source, about)
    return repr(about).encode() + hashlib.blake2b(body, digest_size=24).digest()


def _bytes_of(source: Any, about: list[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (str, Path)):
        return Path(source).expanduser().read_bytes()
    array = np.asarray(source)
    about += [str(array.shape), str(array.dtype), str(getattr(source, "mode", ""))]
    return array.tobytes()


def _packed(one: Encoded) -> bytes:
    arrays: dict[str, Any] = {}
    if one.vector is not None:
        arrays["vector"] = one.vector
    if one.multi is not None:
        arrays["multi"] = one.multi
    if one.boxes is not None:
        arrays["boxes"] = one.boxes
    if one.sparse is not None:
        arrays |= {"indices": one.sparse.indices, "weights": one.sparse.weights}
    if one.text is not None:
        arrays["text"] = np.frombuffer(one.text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _unpacked(value: bytes) -> Encoded:
    with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
        sparse = None
        if "indices" in arrays:
            sparse = SparseVector(arrays["indices"], arrays["weights"])
        text = None
        if "text" in arrays:
            text = arrays["text"].tobytes().decode("utf-8", "surrogatepass")
        return Encoded(
            0,
            arrays.get("vector"),
            text=text,
            multi=arrays.get("multi"),
            boxes=arrays.get("boxes"),
            sparse=sparse,
        )

"""From chunks to rows: what is new goes through the model, whole files are written in batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from codeembed.chunk import Chunk
from codeembed.collect import SourceFile, content_hash
from codeembed.layout import embedded_texts
from codeembed.results import IndexReport
from codeembed.tokens import CodeModel
from mmembed.search.filters import In
from mmembed.search.store import Record, Vector, VectorStore

__all__ = ["ChunkWriter", "KnownFile", "delete_rows", "known_files"]

_WRITE_CHUNKS = 512
_IDS_PER_DELETE = 1000


@dataclass(slots=True)
class KnownFile:
    """What the store holds of one file."""

    hashes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    chunks: int = -1
    size: int = 0

    def is_complete(self, file_hash: str) -> bool:
        """False as well for a file that a killed process left half written."""
        return self.hashes == {file_hash} and len(self.ids) == self.chunks


def known_files(store: VectorStore) -> tuple[dict[str, KnownFile], dict[str, str]]:
    """What the store holds, by path, and the id of a row for each chunk hash."""
    known: dict[str, KnownFile] = {}
    ids_by_chunk: dict[str, str] = {}
    fields = ("path", "file_hash", "file_chunks", "file_bytes", "chunk_hash")
    for record in store.scan(fields=fields):
        values = record.fields
        file = known.setdefault(str(values["path"]), KnownFile())
        file.hashes.add(str(values["file_hash"]))
        file.ids.add(record.id)
        file.chunks = int(str(values["file_chunks"]))
        file.size = int(str(values["file_bytes"]))
        ids_by_chunk[str(values["chunk_hash"])] = record.id
    return known, ids_by_chunk


def delete_rows(store: VectorStore, ids: Iterable[str]) -> None:
    """Delete rows by id."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _IDS_PER_DELETE):
        store.delete(In("id", tuple(ordered[start : start + _IDS_PER_DELETE])))


class ChunkWriter:
    """Embeds what is new and writes whole files, in batches."""

    def __init__(
        self,
        store: VectorStore,
        model: CodeModel,
        ids_by_chunk: dict[str, str],
        report: IndexReport,
    ) -> None:
        self._store = store
        self._model = model
        self._ids_by_chunk = ids_by_chunk
        self._report = report
        self._waiting: list[tuple[SourceFile, KnownFile]] = []
        self._chunks = 0

    def add(self, source: SourceFile, before: KnownFile) -> None:
        """Take a new or changed file."""
        self._waiting.append((source, before))
        self._chunks += len(source.chunked.chunks)
        if before.ids:
            self._report.changed += 1
        else:
            self._report.added += 1
        self._report.by_language[source.chunked.language] += 1
        self._report.by_method[str(source.chunked.method)] += 1
        if not source.chunked.is_utf8:
            self._report.not_utf8.append(source.path)
        if self._chunks >= _WRITE_CHUNKS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting: new rows first, so that a kill in between loses nothing."""
        waiting, self._waiting, self._chunks = self._waiting, [], 0
        chunks = [
            (source, number, chunk)
            for source, _ in waiting
            for number, chunk in enumerate(source.chunked.chunks)
        ]
        hashes = [_chunk_hash(chunk) for _, _, chunk in chunks]
        vectors = self._vectors([chunk for _, _, chunk in chunks], hashes)
        records = []
        for (source, number, chunk), chunk_hash in zip(chunks, hashes, strict=True):
            if chunk_hash in vectors:
                vector = vectors[chunk_hash]
                records.append(_record(source, number, chunk, chunk_hash, vector))
        self._store.upsert(records)
        written = {record.id for record in records}
        delete_rows(self._store, {id_ for _, before in waiting for id_ in before.ids} - written)
        self._ids_by_chunk.update((str(r.fields["chunk_hash"]), r.id) for r in records)

    def _vectors(self, chunks: list[Chunk], hashes: list[str]) -> dict[str, Vector]:
        """A vector by chunk hash: from the store, or from the model."""
        vectors = self._stored_vectors(hashes)
        self._report.reused += sum(each in vectors for each in hashes)
        new = {
            each: chunk for each, chunk in zip(hashes, chunks, strict=True) if each not in vectors
        }
        texts = embedded_texts(list(new.values()), self._model)
        for (chunk_hash, chunk), encoded in zip(
            new.items(), self._model.encode_stream(texts, role="document"), strict=True
        ):
            if encoded.vector is not None:
                vectors[chunk_hash] = encoded.vector
                self._report.embedded += 1
            else:
                where = chunk.breadcrumb.split(" > ", 1)[0]
                self._report.failed.append(f"{where}:{chunk.start_line}: {encoded.error}")
        return vectors

    def _stored_vectors(self, hashes: list[str]) -> dict[str, Vector]:
        ids = {self._ids_by_chunk[each] for each in hashes if each in self._ids_by_chunk}
        records = self._store.get(sorted(ids), vectors=True).values()
        # An id may hold another chunk since it was noted.
        return {
            str(record.fields["chunk_hash"]): record.vector
            for record in records
            if record.vector is not None
        }


def _chunk_hash(chunk: Chunk) -> str:
    return content_hash(f"{chunk.breadcrumb}\n{chunk.text}".encode())


def _record(
    source: SourceFile, number: int, chunk: Chunk, chunk_hash: str, vector: Vector
) -> Record:
    return Record(
        f"{source.path}#{number}",
        vector,
        chunk.text,
        {
            "path": source.path,
            "language": source.chunked.language,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "symbol": chunk.symbol,
            "kind": chunk.kind,
            "breadcrumb": chunk.breadcrumb,
            "symbols": list(chunk.symbols),
            "kinds": list(chunk.kinds),
            "chunk_hash": chunk_hash,
            "file_hash": source.hash,
            "file_chunks": len(source.chunked.chunks),
            "file_bytes": source.size,
        },
    )

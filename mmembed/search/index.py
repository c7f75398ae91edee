"""The index: add media and texts, find them again by text or by example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.items import Item, ItemLike, parse_item
from mmembed.search.file_sync import FileMetadata, FileSync
from mmembed.search.filter_parser import parse_filter
from mmembed.search.filters import And, Compare, Filter, FilterLike, In, Not
from mmembed.search.identity import text_of, utf8
from mmembed.search.item_plan import ItemMetadata, check_lengths, plan_items
from mmembed.search.lance_store import LanceStore
from mmembed.search.layout import (
    FIELDS,
    Location,
    check_model,
    describe_model,
    locate,
    user_metadata,
)
from mmembed.search.model import EmbeddingModel
from mmembed.search.ranking import Ranked, rank_dense, rank_hybrid, rank_text
from mmembed.search.results import AddReport, Hit, IndexStats
from mmembed.search.store import Record, Value, Vector, VectorStore
from mmembed.search.writer import OnError, Progress, RowWriter, clean_metadata

__all__ = ["AddReport", "Hit", "Index", "IndexStats", "Mode"]

Mode: TypeAlias = Literal["hybrid", "dense", "text"]

# Many small writes leave many small files.
_OPTIMIZE_AFTER = 1000


class Index:
    """Items of any modality, found by meaning, by words and by metadata.

    Open one with :meth:`open`. Several processes may search while one adds; a second writer gets
    :class:`~mmembed.search.store.StoreLockedError`. An index that a process was killed over opens
    as it was after the last finished write, and adding again completes it.

    Filters are a text such as ``modality == "image" and year >= 2020`` or a dict such as
    ``{"modality": "image"}``; see :mod:`mmembed.search.filters`. They may name ``id``, ``text``,
    the index's own fields (``modality``, ``path``, ``page``, ``content_hash``, ``size``,
    ``mtime_ns``) and any metadata.

    >>> index = Index.open("photos/")                                       # doctest: +SKIP
    >>> index.add("photos/")                                                # doctest: +SKIP
    >>> index.search("red bicycle", k=5, filter='path like "holiday/*"')    # doctest: +SKIP
    """

    def __init__(self, location: Location, model: EmbeddingModel | str | None) -> None:
        self._location = location
        self._model_name = model if isinstance(model, str) else None
        self._model = None if isinstance(model, str) else model
        self._opened: VectorStore | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: EmbeddingModel | str | None = None,
        *,
        create: bool = True,
    ) -> Index:
        """Open an index; a new one is made on disk by the first ``add``.

        Args:
            path: a folder of media, whose index lives in ``.mmembed`` inside it; or the folder of
                an index: one that holds an index already, is empty, or does not exist.
            model: the model, or a name for ``Embedder.from_pretrained``. By default the model that
                the index records, or ``"mini"`` for a new one, loaded when it is first needed.
            create: whether an index may be made where there is none.

        Raises:
            InputError: there is no index, and ``create`` is False; or ``path`` is a file.
            IndexMismatchError: another model, or another version of the layout, made the index.
        """
        if Path(path).expanduser().is_file():
            raise InputError(str(path), "is a file", "give a folder of media or of an index")
        location = locate(path, LanceStore.exists(Path(path).expanduser()))
        index = cls(location, model)
        if index._store is None and not create:
            raise InputError(str(path), "holds no index", "add something to it first")
        return index

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._location.folder

    @property
    def model(self) -> EmbeddingModel:
        """The model, loaded at first use.

        Raises:
            IndexMismatchError: the model of that name is no longer the one that made the index.
        """
        if self._model is None:
            # Late, because it brings torch.
            from mmembed.embedder import Embedder

            store = self._store
            recorded = None if store is None else store.meta.get("model_name")
            model = Embedder.from_pretrained(self._model_name or recorded or "mini")
            if store is not None:
                check_model(self._location, store.meta, store.dim, model)
            self._model = model
        return self._model

    def __len__(self) -> int:
        store = self._store
        return 0 if store is None else store.count()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store."""
        if self._opened is not None:
            self._opened.close()

    def add(
        self,
        x: str | Path | ItemLike | Iterable[ItemLike],
        *,
        metadata: FileMetadata | ItemMetadata | None = None,
        ids: Iterable[str] | None = None,
        on_error: OnError = "skip",
        progress: Progress | None = None,
    ) -> AddReport:
        """Add files, or items; what is there already and has not changed costs next to nothing.

        With a path, the index is made to mirror the files: those whose size, time or content
        changed are embedded again, and those that are gone from below the path are deleted from
        the index. A content that is there twice is embedded once and found under both paths.

        Args:
            x: one folder or file as a ``str`` or ``Path``: here alone a ``str`` is a path. Or one
                item or an iterable of them, in which a ``str`` is text; it is read lazily.
            metadata: for files, one dict for all or a function of the path; for items, one dict
                for all or one for each. Values are str, int, float, bool or lists of str; each
                name becomes a typed field to filter by, of the type of its first value. None keeps
                the metadata an item has.
            ids: one for each item. An id that exists is updated. By default an item that is a file
                goes by its path, another one by its content.
            on_error: ``"skip"`` reports bad inputs at the end, ``"raise"`` ends at the first.
            progress: called with the report after every item.

        Raises:
            InputError: the path does not exist; or any bad input, with ``on_error="raise"``.
            StoreLockedError: another process or thread is writing.
        """
        report = AddReport()
        store = self._writable_store()
        with store.writing():
            writer = RowWriter(store, report, on_error, progress)
            if isinstance(x, str | Path):
                self._add_files(store, writer, report, Path(x), metadata, ids)
            else:
                self._add_items(store, writer, report, x, metadata, ids)
            if report.written >= _OPTIMIZE_AFTER:
                store.optimize()
        return report

    def update(
        self,
        metadata: Mapping[str, Any],
        *,
        ids: str | Iterable[str] | None = None,
        filter: FilterLike | None = None,
    ) -> int:
        """Set metadata of the items with these ids, or of those a filter matches.

        Other metadata stays; a value of None removes a name. Returns the number of items. To change
        the content of an item, ``add`` it again under its id.

        Raises:
            InputError: neither or both of ``ids`` and ``filter`` are given, or a value has another
                type than its field; nothing is written then.
        """
        where = _selection(ids, filter)
        cleaned = clean_metadata(metadata) or {}
        store = self._store
        if store is None:
            return 0
        with store.writing():
            report = AddReport()
            writer = RowWriter(store, report, "raise", None)
            for record in store.scan(where, vectors=True):
                fields = {**record.fields, **cleaned}
                writer.write(Record(record.id, record.vector, record.text, fields), "updated")
            writer.flush()
        return report.updated

    def delete(
        self, ids: str | Iterable[str] | None = None, *, filter: FilterLike | None = None
    ) -> int:
        """Delete the items with these ids, or those a filter matches; returns their number.

        Files on disk are not touched, so a file comes back when its folder is added again.

        Raises:
            InputError: neither or both of ``ids`` and ``filter`` are given, or the filter is bad.
        """
        where = _selection(ids, filter)
        store = self._store
        return 0 if store is None else store.delete(where)

    def search(
        self,
        query: ItemLike,
        k: int = 10,
        *,
        filter: FilterLike | None = None,
        mode: Mode = "hybrid",
        min_score: float | None = None,
    ) -> list[Hit]:
        """The ``k`` items that fit a query best, best first.

        Args:
            query: a ``str`` is text; a ``Path``, image, dict and so on is an example to match.
            k: number of hits.
            filter: only items that match it are considered.
            mode: ``"dense"`` ranks by cosine similarity of the vectors, ``"text"`` by the words of
                the query (BM25), ``"hybrid"`` joins both lists by reciprocal rank fusion. A query
                without text is always dense.
            min_score: drop hits below this cosine similarity (BM25 score in mode ``"text"``).

        Raises:
            InputError: the query or the filter cannot be read, or mode ``"text"`` has no text.
        """
        if mode not in ("hybrid", "dense", "text"):
            raise InputError("mode", f"unknown mode {mode!r}", "use 'hybrid', 'dense' or 'text'")
        item = parse_item(query)
        words = text_of(item)
        utf8(words)
        if mode == "text" and not words:
            raise InputError(item.label, "has no text to search for", "use mode='dense'")
        store = self._store
        if store is None or k < 1:
            return []
        if mode == "text":
            ranked = rank_text(store, words, k, filter, min_score)
        else:
            vector = self._encode_query(item)
            if mode == "dense" or not words:
                ranked = rank_dense(store, vector, k, filter, min_score)
            else:
                ranked = rank_hybrid(store, vector, words, k, filter, min_score)
        return [self._hit(each) for each in ranked]

    def similar(self, id: str, k: int = 10, *, filter: FilterLike | None = None) -> list[Hit]:
        """The ``k`` items most like the one with this id, without itself.

        Raises:
            InputError: there is no such id, or the filter is bad.
        """
        store = self._store
        record = None if store is None else store.get([id], vectors=True).get(id)
        if store is None or record is None or record.vector is None:
            raise InputError(id, "is not in the index")
        others: Filter = Not(Compare("id", "==", id))
        where = others if filter is None else And((others, parse_filter(filter)))
        return [self._hit(each) for each in rank_dense(store, record.vector, k, where, None)]

    def stats(self) -> IndexStats:
        """Number of items, the model, and the state of the store."""
        store = self._store
        if store is None:
            return IndexStats(self.path, 0, {}, None, None, None)
        names = ("text", "image", "video", "document")
        counts = {name: store.count({"modality": name}) for name in names}
        stats, meta = store.stats(), store.meta
        return IndexStats(
            path=self.path,
            items=stats.rows,
            modalities={name: count for name, count in counts.items() if count},
            model_name=meta.get("model_name"),
            model_fingerprint=meta.get("model_fingerprint"),
            store=stats,
        )

    def optimize(self) -> None:
        """Compact the files and bring the search indices up to date; ``add`` does it by itself."""
        store = self._store
        if store is not None:
            store.optimize()

    @property
    def _store(self) -> VectorStore | None:
        """The store, or None while nobody has made it: another process may, at any time."""
        folder = self._location.folder
        if self._opened is None and LanceStore.exists(folder):
            self._opened = self._checked(LanceStore.open(folder))
        return self._opened

    def _writable_store(self) -> VectorStore:
        store = self._store
        if store is None:
            model, folder = self.model, self._location.folder
            meta = describe_model(model)
            try:
                store = LanceStore.create(folder, dim=model.dim, fields=FIELDS, meta=meta)
            except FileExistsError:  # another process was faster
                store = self._checked(LanceStore.open(folder))
            self._opened = store
        return store

    def _checked(self, store: VectorStore) -> VectorStore:
        check_model(self._location, store.meta, store.dim, self._model)
        return store

    def _add_files(
        self,
        store: VectorStore,
        writer: RowWriter,
        report: AddReport,
        root: Path,
        metadata: Any,
        ids: Iterable[str] | None,
    ) -> None:
        if not root.expanduser().exists():
            hint = "a str is a path here; to add a text, put it in a list: [text]"
            raise InputError(str(root), "does not exist", hint)
        if ids is not None:
            raise InputError("ids", "do not go with a path", "files go by their paths")
        if metadata is not None and not isinstance(metadata, Mapping) and not callable(metadata):
            raise InputError("metadata", "is no dict and no function", "give one of them for files")
        FileSync(store, self._location, writer, report, metadata).run(self.model, [root])

    def _add_items(
        self,
        store: VectorStore,
        writer: RowWriter,
        report: AddReport,
        x: Any,
        metadata: Any,
        ids: Iterable[str] | None,
    ) -> None:
        values: Iterable[ItemLike] = [x] if _is_one_item(x) else x
        check_lengths(values, ids=ids, metadata=metadata)
        writer.encode(self.model, plan_items(store, self._location, report, values, ids, metadata))

    def _encode_query(self, item: Item) -> Vector:
        encoded = next(iter(self.model.encode_stream([item], role="query")))
        if encoded.vector is None:
            raise encoded.error or InputError(item.label, "the model gave no vector")
        return encoded.vector

    def _hit(self, ranked: Ranked) -> Hit:
        record = ranked.record
        fields: Mapping[str, Any] = record.fields
        key, page = fields.get("path"), fields.get("page")
        uri = None
        if key is not None:
            part = fields.get("part") or ("" if page is None else f"#page={page}")
            uri = f"{self._location.path_of(key)}{part}"
        metadata: dict[str, Value] = user_metadata(record)
        return Hit(
            id=record.id,
            score=ranked.score,
            scores=ranked.scores,
            uri=uri,
            modality=fields["modality"],
            page=page,
            text=record.text,
            metadata=metadata,
        )


def _is_one_item(x: Any) -> bool:
    # Each of these can be iterated over, or not at all, but is one input.
    return isinstance(x, Item | Mapping | bytes | np.ndarray) or not isinstance(x, Iterable)


def _selection(ids: str | Iterable[str] | None, filter: FilterLike | None) -> FilterLike:
    if (ids is None) == (filter is None):
        raise InputError("selection", "needs ids or a filter, and not both")
    if filter is not None:
        return filter
    return In("id", (ids,) if isinstance(ids, str) else tuple(ids or ()))

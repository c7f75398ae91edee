"""The index: add media and texts, find them again by text or by example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmembed.errors import IndexMismatchError, InputError
from mmembed.inputs.items import Item, ItemLike, parse_item
from mmembed.search.file_sync import FileMetadata, FileSync
from mmembed.search.filter_parser import parse_filter
from mmembed.search.filters import And, Compare, Filter, FilterLike, In, Not
from mmembed.search.item_plan import ItemMetadata, check_lengths, plan_items
from mmembed.search.late import LateInteraction, TokenStorage, storage_for
from mmembed.search.layout import FIELDS, check_model, describe_model
from mmembed.search.model import EmbeddingModel
from mmembed.search.pipeline import Mode, Question, answer
from mmembed.search.places import Place, place_of
from mmembed.search.ranking import Ranked, rank_dense
from mmembed.search.results import AddReport, Hit, IndexStats, hit_of
from mmembed.search.steps import PairModel
from mmembed.search.store import Vector, VectorStore
from mmembed.search.truncation import Truncated
from mmembed.search.writer import OnError, Progress, RowWriter, clean_metadata

__all__ = ["AddReport", "Hit", "Index", "IndexStats", "LateInteraction", "Mode"]

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

    def __init__(
        self,
        place: Place,
        model: EmbeddingModel | str | None,
        late: LateInteraction | None = None,
        dim: int | None = None,
    ) -> None:
        self._place = place
        self._location = place.location
        self._late = late
        self._dim = dim
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
        late: LateInteraction | None = None,
        dim: int | None = None,
    ) -> Index:
        """Open an index; a new one is made on disk by the first ``add``.

        Args:
            path: a folder of media, whose index lives in ``.mmembed`` inside it; or the folder of
                an index: one that holds an index already, is empty, or does not exist; or a
                schema of a database, ``postgresql://HOST/DATABASE/INDEX``.
            model: the model, or a name for ``Embedder.from_pretrained``. By default the model that
                the index records, or ``"mini"`` for a new one, loaded when it is first needed.
            create: whether an index may be made where there is none.
            late: keep a vector a token in a new index, for ``maxsim`` searches; one that exists
                keeps what it was made with.
            dim: length of the dense vectors of a new index, for models trained to be cut
                (Matryoshka); by default the model's own.

        Raises:
            InputError: there is no index, and ``create`` is False; or ``path`` is a file.
            IndexMismatchError: another model, or another version of the layout, made the index.
        """
        if Path(path).expanduser().is_file():
            raise InputError(str(path), "is a file", "give a folder of media or of an index")
        index = cls(place_of(path), model, late, dim)
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
            name = self._model_name or recorded or "mini"
            model: EmbeddingModel = Embedder.from_pretrained(name)
            if store is not None:
                model = self._cut(model, store.dim)
                check_model(self._location, store.meta, store.dim, model)
            self._model = model
        return self._model

    def _cut(self, model: EmbeddingModel, dim: int | None) -> EmbeddingModel:
        return model if dim is None or dim == model.dim else Truncated(model, dim)

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
            storage = TokenStorage.of_meta(store.meta)
            writer = RowWriter(store, report, on_error, progress, storage)
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
                writer.write(replace(record, fields=fields), "updated")
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
        maxsim: int = 0,
        reranker: PairModel | None = None,
        rerank: int = 20,
    ) -> list[Hit]:
        """The ``k`` items that fit a query best, best first, in up to three steps.

        Args:
            query: a ``str`` is text; a ``Path``, image, dict and so on is an example to match.
            k: number of hits.
            filter: only items that match it are considered.
            mode: ``"dense"`` ranks by cosine similarity of the vectors, ``"text"`` by the words of
                the query (BM25), ``"hybrid"`` joins both lists by reciprocal rank fusion. A query
                without text is always dense.
            min_score: drop hits below this cosine similarity (BM25 score in mode ``"text"``).
            maxsim: how many candidates are ranked again by MaxSim over their token vectors, of an
                index made with ``late``; 0 leaves the step out. A number not below that of the
                items that pass the filter scores every one of them, exactly.
            reranker: judges the best of the steps before it, query and document together, from the
                media where it is there, else from the text.
            rerank: how many it judges; hits beyond them are not returned.

        Raises:
            InputError: the query or the filter cannot be read, or mode ``"text"`` has no text.
            ConfigError: ``maxsim`` is above 0, and the index keeps no token vectors.
        """
        question = Question(parse_item(query), k, filter, mode, min_score, maxsim, reranker, rerank)
        question.check()
        store = self._store
        if store is None or k < 1:
            return []
        storage = TokenStorage.of_meta(store.meta)
        ranked = answer(store, storage, self._location, lambda: self.model, question)
        return [hit_of(each, self._location) for each in ranked]

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
        ranked = rank_dense(store, record.vector, k, where, None)
        return [hit_of(each, self._location) for each in ranked]

    def sample(self, limit: int) -> Iterator[tuple[Hit, Vector]]:
        """Up to ``limit`` items with their dense vectors, in no particular order."""
        store = self._store
        for record in () if store is None else islice(store.scan(vectors=True), limit):
            assert record.vector is not None
            yield hit_of(Ranked(record, 0.0, {}), self._location), record.vector

    @property
    def keeps_tokens(self) -> bool:
        """Whether ``maxsim`` searches are possible."""
        return self._store is not None and self._store.summary_dim > 0

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
        if self._opened is None and self._place.exists():
            self._opened = self._checked(self._place.open())
        return self._opened

    def _writable_store(self) -> VectorStore:
        store = self._store
        if store is None:
            self._model = model = self._cut(self.model, self._dim)
            meta, summary_dim = describe_model(model), 0
            if self._late is not None:
                storage = storage_for(model, self._late)
                meta, summary_dim = meta | storage.as_meta(), storage.encoding.dim
            try:
                store = self._place.create(
                    dim=model.dim, fields=FIELDS, meta=meta, summary_dim=summary_dim
                )
            except FileExistsError:  # another process was faster
                store = self._checked(self._place.open())
            self._opened = store
        return store

    def _checked(self, store: VectorStore) -> VectorStore:
        if self._model is not None and store.dim < self._model.dim:
            self._model = self._cut(self._model, store.dim)
        check_model(self._location, store.meta, store.dim, self._model)
        if self._dim is not None and self._dim != store.dim:
            raise IndexMismatchError(f"{self.path} has vectors of {store.dim}, not {self._dim}")
        storage = TokenStorage.of_meta(store.meta)
        if self._late is not None and (storage is None or storage.settings != self._late):
            kept = "no token vectors" if storage is None else str(storage.settings)
            raise IndexMismatchError(
                f"{self.path} keeps {kept}, not {self._late}: leave late= out, or index anew"
            )
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


def _is_one_item(x: Any) -> bool:
    # Each of these can be iterated over, or not at all, but is one input.
    return isinstance(x, Item | Mapping | bytes | np.ndarray) or not isinstance(x, Iterable)


def _selection(ids: str | Iterable[str] | None, filter: FilterLike | None) -> FilterLike:
    if (ids is None) == (filter is None):
        raise InputError("selection", "needs ids or a filter, and not both")
    if filter is not None:
        return filter
    return In("id", (ids,) if isinstance(ids, str) else tuple(ids or ()))

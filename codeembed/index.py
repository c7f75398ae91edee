"""A code index: the chunks of a folder, searchable, and brought up to date by content."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codeembed.catalog import Catalog
from codeembed.database import CodeStore
from codeembed.filling import fill, filling
from codeembed.layout import check_layout, check_model, describe, describe_model
from codeembed.model import for_code, load_model
from codeembed.reading import Reading, reading_of, reading_of_model, static_of
from codeembed.results import CodeHit, IndexReport, load_report, save_report
from codeembed.search import CodeFilter, Mode, Question, Source, find
from codeembed.tokens import CodeModel
from codeembed.update import Progress, update_files
from codeembed.walk import DEFAULT_MAX_BYTES, INDEX_DIR, walk
from mmembed.errors import IndexMismatchError, InputError
from mmembed.search.store import StoreLockedError

__all__ = ["CodeIndex", "Progress"]

_DEFAULT_MODEL = "mini"


class CodeIndex:
    """The index of one folder of source code.

    Everything is kept relative to the folder, so that it can be moved with its index, and with its
    text, so that it answers where the sources are not. Many processes may search while one updates.

    Example:
        >>> index = CodeIndex.open("~/project")
        >>> report = index.update()
        >>> index.search("retry with backoff", k=5)[0].path
        'net/retry.py'
    """

    def __init__(self, root: Path, folder: Path, model: CodeModel | None) -> None:
        self.root = root
        self.folder = folder
        self._model = model
        self._store: CodeStore | None = None
        self._loading = threading.Lock()

    @classmethod
    def open(
        cls,
        root: str | Path,
        model: CodeModel | None = None,
        store: str | Path | None = None,
    ) -> CodeIndex:
        """Open the index of a folder; nothing is written before :meth:`update`.

        Args:
            root: Folder of source code. It may be missing where the index lives elsewhere.
            model: Makes the vectors, through its task adapter ``code`` if it has one; by default
                the one that made the index, or ``mini`` for a new one, loaded when first needed.
            store: Folder of the index; by default ``.codeembed`` inside the root.

        Raises:
            IndexMismatchError: the index was made by another model or release.
            InputError: the root is not a folder.
        """
        model = None if model is None else for_code(model)
        root = Path(root).expanduser().absolute()
        folder = root / INDEX_DIR if store is None else Path(store).expanduser().absolute()
        exists = CodeStore.exists(folder)
        if not root.is_dir() and not exists:
            raise InputError(str(root), "is not a folder", "name a folder of source code")
        if (folder / "items.lance").is_dir() and not exists:
            raise IndexMismatchError(
                f"{folder} was made by an earlier release: delete it and index again"
            )
        index = cls(root, folder, model)
        if exists:
            index._store = CodeStore(folder)
            meta = index._store.meta
            check_layout(folder, meta)
            if model is not None:
                check_model(folder, meta, model)
        return index

    @property
    def exists(self) -> bool:
        """Whether there is an index on disk."""
        return self._store is not None

    @property
    def model(self) -> CodeModel:
        """The model; loaded now if it was not given.

        Raises:
            IndexMismatchError: it is not the one that made the index.
        """
        with self._loading:
            if self._model is None:
                meta = self._meta
                model = load_model(meta.get("model_name", _DEFAULT_MODEL))
                if meta:
                    check_model(self.folder, meta, model)
                self._model = model
            return self._model

    @property
    def _meta(self) -> dict[str, str]:
        return {} if self._store is None else self._store.meta

    @cached_property
    def _reading(self) -> Reading:
        if self._model is not None:
            return reading_of_model(self._model)
        found = reading_of(self._meta.get("model_name", _DEFAULT_MODEL))
        return reading_of_model(self.model) if found is None else found

    @cached_property
    def _catalog(self) -> Catalog:
        name = self._meta.get("model_name", _DEFAULT_MODEL)
        return Catalog(self.folder, static_of(name if self._model is None else self._model.name))

    def update(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        ignore: Sequence[str] = (),
        workers: int | None = None,
        progress: Progress | None = None,
        vectors: bool = True,
    ) -> IndexReport:
        """Bring the index in line with the folder.

        Only files that changed are cut again, and of those only content that was not there before
        goes through the model. Safe to kill at any moment: the next update completes it.

        Args:
            max_bytes: Larger files are skipped.
            ignore: Patterns as in ``.gitignore`` that count after those of the root.
            workers: Processes that cut files; by default as many as help.
            progress: Called with what is being done, how many are done, and of how many.
            vectors: Also give a vector to every chunk (see :meth:`fill`); without, words find what
                is new, and no model is loaded.

        Raises:
            StoreLockedError: another process is updating this index.
            InputError: the root is not a folder that can be read.
        """
        start = time.monotonic()
        say = progress or _silent
        found = walk(self.root, max_bytes, ignore)
        store = self._writable_store()
        with store.writing():
            report = update_files(found, store, self._reading, workers, say)
            if report.added or report.changed or report.removed:
                say("finishing", 0, 1)
                self._catalog.refresh(store)
                self._catalog.save_if_stale()
        if vectors:
            self.fill(report=report, progress=progress)
        report.files, report.bytes, report.chunks, report.waiting = store.count()
        report.seconds = time.monotonic() - start
        save_report(self.folder, report)
        return report

    def fill(
        self,
        *,
        report: IndexReport | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Give vectors to the chunks that have none; false where another process is at it.

        Args:
            report: Where to count.
            progress: As for :meth:`update`.
            stop: Asked between batches.

        Raises:
            InputError: there is no index.
        """
        store = self._existing_store()
        if not store.count()[3]:
            return True
        with filling(self.folder) as mine:
            if mine:
                model = self.model
                if "model_fingerprint" not in store.meta:
                    store.describe(describe_model(model))
                fill(store, model, report or IndexReport(), progress or _silent, stop)
        return mine

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        glob: Sequence[str] = (),
        language: Sequence[str] = (),
        kind: Sequence[str] = (),
    ) -> list[CodeHit]:
        """The best ``k`` chunks, best first.

        Filters take effect before the best are chosen, so a narrow one still gives ``k`` hits where
        there are as many.

        Args:
            query: Words, or a symbol.
            k: How many hits at most.
            mode: ``hybrid`` fuses ``dense`` (the model's vectors), ``static`` (vectors of words
                alone) and ``lexical`` (BM25 over identifiers), as far as there are any.
            glob: Patterns as in ``.gitignore``, e.g. ``src/**/*.py``, ``!*_test.py``.
            language: Names of languages or formats; aliases such as ``py`` are known.
            kind: ``class``, ``function``, ``method``, ``section``, ``skeleton``, ...

        Raises:
            InputError: there is no index, or the query is empty.
            ConfigError: a language has no such name.
        """
        chosen = CodeFilter(tuple(glob), tuple(language), tuple(kind))
        source = self.source()
        return find(self.question(query, mode), k, chosen, [source])

    def related(
        self,
        path: str,
        line: int,
        k: int = 10,
        *,
        glob: Sequence[str] = (),
        language: Sequence[str] = (),
        kind: Sequence[str] = (),
    ) -> list[CodeHit]:
        """The best ``k`` chunks that are like the one at a line of a file, best first.

        Args:
            path: Relative to the root, with ``/``.
            line: From 1.

        Raises:
            InputError: there is no index, or nothing of that file in it.
        """
        chosen = CodeFilter(tuple(glob), tuple(language), tuple(kind))
        source = self.source()
        chunk = source.store.at(path, line)
        if chunk is None:
            raise InputError(f"{path}:{line}", "is not in the index", "give a path that a hit has")
        row = int(source.catalog.rows_of([chunk.id])[0])
        vector = source.catalog.dense_of(row)
        question = Question(chunk.text, vector, "hybrid", apart_from=(0, row))
        return find(question, k, chosen, [source])

    def source(self) -> Source:
        """This index, up to date in memory, for :func:`codeembed.search.find`.

        Raises:
            InputError: there is no index.
        """
        store = self._existing_store()
        self._catalog.refresh(store)
        return Source(store, self._catalog)

    def question(self, query: str, mode: Mode) -> Question:
        """A query as this index's model reads it.

        Raises:
            InputError: the query is empty.
        """
        if not query.strip():
            raise InputError("query", "is empty", "give words or a symbol to look for")
        wants = mode in ("hybrid", "dense") and bool(self._catalog.has_dense.any())
        return Question(query, self._vector(query) if wants else None, mode)

    def _vector(self, query: str) -> npt.NDArray[np.float32]:
        encoded = next(iter(self.model.encode_stream([query], role="query")))
        if encoded.vector is None:
            assert encoded.error is not None
            raise encoded.error
        return encoded.vector / max(float(np.linalg.norm(encoded.vector)), 1e-12)

    @property
    def waiting(self) -> int:
        """How many chunks have no vector of the model yet; 0 without an index."""
        return 0 if self._store is None else self._store.count()[3]

    def status(self) -> dict[str, object]:
        """Where the index is, what it holds, which model made it, and the last update's report.

        Raises:
            InputError: there is no index.
        """
        store = self._existing_store()
        meta = store.meta
        files, size, chunks, waiting = store.count()
        report = load_report(self.folder)
        return {
            "root": str(self.root),
            "index": str(self.folder),
            "model": meta["model_name"],
            "fingerprint": meta.get("model_fingerprint"),
            "dim": int(meta["dim"]) if "dim" in meta else None,
            "files": files,
            "bytes": size,
            "chunks": chunks,
            "waiting": waiting,
            "bytes_on_disk": sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()),
            "complete": waiting == 0,
            "last_update": None if report is None else report.as_dict(),
        }

    def close(self) -> None:
        """Release the files."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> CodeIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _existing_store(self) -> CodeStore:
        if self._store is None:
            raise InputError(str(self.root), "has no index", f"run: codeembed index {self.root}")
        return self._store

    def _writable_store(self) -> CodeStore:
        if self._store is None:
            reading = self._reading
            store = CodeStore(self.folder, create=True)
            # The index shall not be committed with the code.
            (self.folder / ".gitignore").write_text("*\n", "utf-8")
            try:
                with store.writing():
                    if not store.meta:
                        model = {} if self._model is None else describe_model(self._model)
                        store.describe({**describe(reading.name, reading.max_tokens), **model})
            except StoreLockedError:
                if not store.meta:
                    raise
            check_layout(self.folder, store.meta)
            self._store = store
        return self._store


def _silent(_what: str, _done: int, _total: int) -> None:
    pass

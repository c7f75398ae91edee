"""A code index: the chunks of a folder, searchable, and brought up to date by content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from codeembed.catalog import Catalog
from codeembed.layout import FIELDS, check_meta, describe
from codeembed.results import CodeHit, IndexReport, load_report
from codeembed.search import CodeFilter, Mode, find
from codeembed.tokens import CodeModel
from codeembed.update import Progress, update_store
from codeembed.walk import DEFAULT_MAX_BYTES, INDEX_DIR, walk
from codeembed.writer import known_files
from mmembed.errors import InputError

if TYPE_CHECKING:
    from mmembed.search.lance_store import LanceStore

__all__ = ["CodeIndex", "Progress"]


class CodeIndex:
    """The index of one folder of source code.

    Everything is kept relative to the folder, so that it can be moved with its index. Many
    processes may search while one updates.

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
        self._store: LanceStore | None = None

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
            model: Makes the vectors; by default the one that made the index, or ``mini`` for a new
                one, loaded when it is first needed.
            store: Folder of the index; by default ``.codeembed`` inside the root.

        Raises:
            IndexMismatchError: the index was made by another model or release.
            InputError: the root is not a folder.
        """
        from mmembed.search.lance_store import LanceStore

        root = Path(root).expanduser().absolute()
        folder = root / INDEX_DIR if store is None else Path(store).expanduser().absolute()
        if not root.is_dir() and not LanceStore.exists(folder):
            raise InputError(str(root), "is not a folder", "name a folder of source code")
        index = cls(root, folder, model)
        if LanceStore.exists(folder):
            index._store = LanceStore.open(folder)
            check_meta(folder, index._store.meta, index._store.dim, model)
        return index

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self.folder)

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
        if self._model is None:
            from mmembed.embedder import Embedder

            name = "mini" if self._store is None else self._store.meta["model_name"]
            model: CodeModel = Embedder.from_pretrained(name)
            if self._store is not None:
                check_meta(self.folder, self._store.meta, self._store.dim, model)
            self._model = model
        return self._model

    def update(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Bring the index in line with the folder.

        Only files whose content changed are cut again, and of those only chunks that were not there
        before go through the model. Safe to kill at any moment: the next update completes it.

        Args:
            max_bytes: Larger files are skipped.
            workers: Processes that cut files; by default as many as help.
            progress: Called with what is being done, how many are done, and of how many.

        Raises:
            StoreLockedError: another process is updating this index.
            InputError: the root is not a folder that can be read.
        """
        found = walk(self.root, max_bytes)
        store = self._writable_store()
        with store.writing():
            return update_store(
                found, self.folder, store, lambda: self.model, self._catalog, workers, progress
            )

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
            mode: ``hybrid`` joins ``dense`` (vectors) and ``lexical`` (BM25 over identifiers).
            glob: Patterns as in ``.gitignore``, e.g. ``src/**/*.py``, ``!*_test.py``.
            language: Names of languages or formats; aliases such as ``py`` are known.
            kind: ``class``, ``function``, ``method``, ``section``, ...

        Raises:
            InputError: there is no index, or the query is empty.
            ConfigError: a language has no such name.
        """
        if self._store is None:
            raise InputError(str(self.root), "has no index", f"run: codeembed index {self.root}")
        if not query.strip():
            raise InputError("query", "is empty", "give words or a symbol to look for")
        self._catalog.refresh(self._store)
        chosen = CodeFilter(tuple(glob), tuple(language), tuple(kind))
        model = None if mode == "lexical" else self.model
        return find(query, k, mode, chosen, self._catalog, self._store, model)

    def status(self) -> dict[str, object]:
        """Where the index is, what it holds, which model made it, and the last update's report.

        Raises:
            InputError: there is no index.
        """
        if self._store is None:
            raise InputError(str(self.root), "has no index", f"run: codeembed index {self.root}")
        stats = self._store.stats()
        known, _ = known_files(self._store)
        report = load_report(self.folder)
        return {
            "root": str(self.root),
            "index": str(self.folder),
            "model": self._store.meta["model_name"],
            "fingerprint": self._store.meta["model_fingerprint"],
            "dim": stats.dim,
            "files": len(known),
            "chunks": stats.rows,
            "bytes_on_disk": stats.bytes,
            "complete": all(each.is_complete(min(each.hashes)) for each in known.values()),
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

    def _writable_store(self) -> LanceStore:
        from mmembed.search.lance_store import LanceStore

        if self._store is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The index shall not be committed with the code.
            (self.folder / ".gitignore").write_text("*\n", "utf-8")
            meta = describe(self.model)
            try:
                self._store = LanceStore.create(
                    self.folder, dim=self.model.dim, fields=FIELDS, meta=meta
                )
            except FileExistsError:  # Another process was faster.
                self._store = LanceStore.open(self.folder)
                check_meta(self.folder, self._store.meta, self._store.dim, self.model)
        return self._store

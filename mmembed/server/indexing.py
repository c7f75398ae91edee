"""``/api/index``: bring a folder into the index from the page, with progress and a way to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Literal, Protocol

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from mmembed.errors import MmembedError
from mmembed.search.damage import StoreFullError
from mmembed.search.results import AddReport
from mmembed.search.store import StoreLockedError
from mmembed.server.errors import RequestError

__all__ = ["Indexing", "indexing_router"]

_log = logging.getLogger(__name__)
_SHOWN_ERRORS = 20


class Adding(Protocol):
    """What indexing asks of an index."""

    def add(self, x: Path, /, *, progress: Callable[[AddReport], None]) -> AddReport: ...


class _CancelledError(Exception):
    """Ends a run from within; what is written stays."""


class Skipped(BaseModel):
    """A file that could not be read."""

    name: str
    reason: str


class IndexingState(BaseModel):
    """The last run, or the one that goes on.

    Attributes:
        roots: names of the folders that may be indexed.
        state: idle, running, done, cancelled or failed.
        folder: what is indexed.
        added, updated, unchanged, deleted: items so far.
        skipped: the first files that could not be read.
        skipped_count: all of them.
        problem: why it failed.
    """

    roots: list[str]
    state: Literal["idle", "running", "done", "cancelled", "failed"]
    folder: str = ""
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: list[Skipped] = []
    skipped_count: int = 0
    problem: str = ""


class IndexingRequest(BaseModel):
    """A folder to index: the name of a root, and a folder below it."""

    model_config = ConfigDict(extra="forbid")

    root: str = Field(max_length=4096)
    folder: str = Field(default="", max_length=4096)


@dataclass
class Indexing:
    """At most one run at a time, in a thread of its own.

    Attributes:
        index: what it goes into.
        roots: folders that may be indexed; nothing outside of them is ever read.
    """

    index: Adding
    roots: Sequence[Path]
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _report: AddReport = field(default_factory=AddReport)
    _state: Literal["idle", "running", "done", "cancelled", "failed"] = "idle"
    _folder: str = ""
    _problem: str = ""

    def start(self, root: str, folder: str) -> None:
        """Begin a run.

        Raises:
            RequestError: 404, there is no such root or folder in it; 409, a run is going on.
        """
        target = self._resolved(root, folder)
        with self._lock:
            if self._state == "running":
                reason = "a folder is being indexed already: wait for it, or cancel it"
                raise RequestError(HTTPStatus.CONFLICT, None, reason)
            self._state, self._problem = "running", ""
            self._folder = f"{root}/{folder}".rstrip("/")
            self._report = AddReport()
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(target,), daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """Stop the run, if there is one, after the item at hand."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and wait for the last write."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(30)

    def state(self) -> IndexingState:
        """How far it is."""
        with self._lock:
            report, names = self._report, [root.name for root in self.roots]
            return IndexingState(
                roots=names,
                state=self._state,
                folder=self._folder,
                added=report.added,
                updated=report.updated,
                unchanged=report.unchanged,
                deleted=report.deleted,
                skipped=[
                    Skipped(name=Path(each.source).name, reason=each.reason)
                    for each in report.skipped[:_SHOWN_ERRORS]
                ],
                skipped_count=len(report.skipped),
                problem=self._problem,
            )

    def _resolved(self, root: str, folder: str) -> Path:
        missing = RequestError(
            HTTPStatus.NOT_FOUND, "folder", "folder: is no folder that may be indexed here"
        )
        for allowed in self.roots:
            if allowed.name != root:
                continue
            try:
                target = (allowed / folder).resolve()
                if target.is_relative_to(allowed.resolve()) and target.is_dir():
                    # Under its own name, so that paths stay those of earlier runs.
                    return allowed / target.relative_to(allowed.resolve())
            except (OSError, ValueError, RuntimeError):  # too long, a null, a loop of links
                raise missing from None
        raise missing

    def _run(self, target: Path) -> None:
        def told(report: AddReport) -> None:
            with self._lock:
                self._report = report
            if self._stop.is_set():
                raise _CancelledError

        state: Literal["done", "cancelled", "failed"] = "failed"
        problem = ""
        try:
            told(self.index.add(target, progress=told))
            state = "done"
        except _CancelledError:
            state = "cancelled"
        except StoreLockedError:
            problem = "another process is writing to this index"
        except StoreFullError:
            problem = "the server's disk is full; what was indexed before is whole"
        except MmembedError as error:
            _log.warning("indexing failed: %s", error)
            problem = "the folder could not be indexed; the server's log says why"
        except Exception:
            _log.exception("indexing failed")
            problem = "the server failed; its log says why"
        with self._lock:
            self._state, self._problem = state, problem


def indexing_router(indexing: Indexing) -> APIRouter:
    """Routes that start, watch and stop it."""
    router = APIRouter(prefix="/api/index", tags=["index"])

    @router.get("")
    def state() -> IndexingState:
        """The last run, or the one that goes on."""
        return indexing.state()

    @router.post("", status_code=HTTPStatus.ACCEPTED)
    def start(request: IndexingRequest) -> IndexingState:
        """Index a folder, or bring the index up to date with it."""
        indexing.start(request.root, request.folder)
        return indexing.state()

    @router.delete("")
    def cancel() -> IndexingState:
        """Stop; what is written stays, and the next run goes on from there."""
        indexing.cancel()
        return indexing.state()

    return router

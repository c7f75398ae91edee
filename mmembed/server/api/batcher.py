"""Dynamic batching: what waits from all requests goes through the model together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mmembed.encoded import Encoded
from mmembed.errors import ConfigError, MmembedError
from mmembed.inputs.items import Item, TextPart
from mmembed.server.errors import RequestError

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["Batcher", "Work"]

_MEDIA_COST = 300  # tokens that an image, page or clip counts for in the queue


@dataclass(slots=True)
class Work:
    """The inputs of one request.

    Attributes:
        role: ``"query"``, ``"document"`` or None.
        task: name of a task adapter; ``""`` for the model alone.
        outputs: what is wanted of the model.
    """

    items: Sequence[Item]
    role: Any = None
    task: str = ""
    outputs: tuple[Any, ...] = ("dense",)
    done: Future[list[Encoded]] = field(default_factory=Future)

    @property
    def key(self) -> tuple[Any, ...]:
        """Requests with equal keys can share a batch; tasks may differ within one."""
        return (self.role, self.outputs, bool(self.task))

    @property
    def cost(self) -> int:
        """About how many tokens it takes."""
        parts = (part for item in self.items for part in item.parts)
        return sum(1 + len(p.text) // 4 if isinstance(p, TextPart) else _MEDIA_COST for p in parts)


class Batcher:
    """A queue before a model, and the thread that empties it.

    Requests that arrive while a batch runs form the next one, so nothing waits for company on an
    idle server, and a busy one batches by itself.

    Args:
        model: used by this thread alone.
        batch_tokens: about so many tokens of different requests go together.
        queue_tokens: a request that does not fit into so many waiting tokens is refused.
    """

    def __init__(
        self, model: Embedder, *, batch_tokens: int = 16_384, queue_tokens: int = 1_000_000
    ) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.queue_tokens = queue_tokens
        self.batches = 0
        self._waiting: deque[Work] = deque()
        self._cost = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Tokens, roughly, of what waits."""
        return self._cost

    async def run(self, work: Work) -> list[Encoded]:
        """What became of each input, in order.

        Raises:
            RequestError: the queue is full (429), or the server stops (503).
            ConfigError: the model has no such output or task.
        """
        with self._changed:
            if self._closed:
                raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, None, "the server is stopping")
            if self._waiting and self._cost + work.cost > self.queue_tokens:
                error = RequestError(
                    HTTPStatus.TOO_MANY_REQUESTS, None, "too much is waiting: try again later"
                )
                error.headers = {"retry-after": "1"}
                raise error
            self._waiting.append(work)
            self._cost += work.cost
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="mmembed-batches", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        # A client that goes away cancels this, and its work is left out if it has not begun.
        return await asyncio.wrap_future(work.done)

    def close(self) -> None:
        """Refuse what waits and what comes; the batch that runs ends."""
        with self._changed:
            self._closed = True
            for work in self._waiting:
                stopping = RequestError(
                    HTTPStatus.SERVICE_UNAVAILABLE, None, "the server is stopping"
                )
                if work.done.set_running_or_notify_cancel():
                    work.done.set_exception(stopping)
            self._waiting.clear()
            self._cost = 0
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            self._encode(batch)

    def _next(self) -> list[Work]:
        """The oldest request, and those that can go with it; empty once the batcher is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                key, spent = self._waiting[0].key, 0
                batch: list[Work] = []
                kept: deque[Work] = deque()
                for work in self._waiting:
                    fits = work.key == key and (not batch or spent + work.cost <= self.batch_tokens)
                    if not fits:
                        kept.append(work)
                        continue
                    self._cost -= work.cost
                    if work.done.set_running_or_notify_cancel():
                        batch.append(work)
                        spent += work.cost
                self._waiting = kept
            if batch:
                return batch

    def _encode(self, batch: list[Work]) -> None:
        self.batches += 1
        items = [item for work in batch for item in work.items]
        tasks = [work.task for work in batch for _ in work.items]
        try:
            found = list(
                self.model.encode_stream(
                    items,
                    role=batch[0].role,
                    task=tasks if any(tasks) else None,
                    output=batch[0].outputs,
                )
            )
        except Exception as error:
            self._failed(batch, error)
            return
        rows = iter(found)
        for work in batch:
            work.done.set_result([next(rows) for _ in work.items])

    def _failed(self, batch: list[Work], error: Exception) -> None:
        """One request's bad task or output is no other's: each is tried alone."""
        if len(batch) == 1 or not isinstance(error, MmembedError):
            for work in batch:
                work.done.set_exception(error)
            return
        for work in batch:
            self._encode([work])


def bad_config(error: ConfigError) -> RequestError:
    """A request for what the model has not."""
    return RequestError(HTTPStatus.BAD_REQUEST, None, str(error))

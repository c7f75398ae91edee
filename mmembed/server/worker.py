"""One thread for everything that touches the model, so that requests wait in line for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["ModelWorker"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ModelWorker:
    """Runs calls one after another, in their order, away from the event loop.

    A model on one device gains nothing from two threads, and a thread pool of one also holds when
    a client goes away: the call it leaves behind ends before the next one starts.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Await ``function(*args, **kwargs)``."""
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "mmembed-model")
        return await loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Drop what waits; the call that runs ends in its own time. A later ``run`` starts anew."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

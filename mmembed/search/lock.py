"""One writer at a time: a lock file that the operating system frees when its process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmembed.search.store import StoreLockedError

__all__ = ["WriterLock"]


class WriterLock:
    """The right to write to a folder; readers never ask for it.

    The lock is ``flock`` on ``writer.lock``, so a killed process never leaves it behind, and a
    stale ``writer.pid`` means nothing: it only serves to name the holder in the error.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / "writer.lock")
        self._pid_file = folder / "writer.pid"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; reentrant in one thread.

        Raises:
            StoreLockedError: another process or thread holds it.
        """
        outermost = not self._lock.is_locked
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise StoreLockedError(
                f"{self._folder}: {self._holder()} is writing to this index; "
                "wait until it is done, or stop it"
            ) from None
        try:
            if outermost:
                with suppress(OSError):  # of a full disk: deleting must still be possible
                    self._pid_file.write_text(str(os.getpid()))
            yield
        finally:
            self._lock.release()

    def _holder(self) -> str:
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return "another process"
        return "another thread of this process" if pid == os.getpid() else f"process {pid}"

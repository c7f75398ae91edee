"""A store whose files are damaged, or whose disk is full, says so, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmembed.errors import MmembedError

__all__ = ["StoreDamagedError", "StoreFullError", "naming_damage"]


_ENGINE_ERRORS = (RuntimeError, ValueError, KeyError, OSError)
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


class StoreDamagedError(MmembedError, RuntimeError):
    """The files of a store cannot be read; the message names the folder and what to do."""


class StoreFullError(MmembedError, OSError):
    """There is no room for a write; nothing of it was kept, and what was there before is whole."""


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Turn what the engine raises over its files into errors of ours; those of ours pass.

    Raises:
        StoreFullError: there was no room.
        StoreDamagedError: the files cannot be read.
    """
    try:
        yield
    except (MmembedError, FileExistsError):
        raise
    except Exception as error:
        # The engine's parsers also panic over damage, with a class that cannot be imported.
        expected = isinstance(error, _ENGINE_ERRORS) or type(error).__name__ == "RustPanic"
        if not expected:
            raise
        if full := next((sign for sign in _FULL if sign in str(error)), None):
            raise StoreFullError(
                f"{folder}: {full}: what was written before is whole; make room and run it again"
            ) from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StoreDamagedError(
            f"{folder}: its files cannot be read or written ({reason}): restore them from a copy, "
            "or delete the folder and index again"
        ) from error

"""A store whose files are damaged says so, and what to do, instead of what its engine saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmembed.errors import MmembedError

__all__ = ["StoreDamagedError", "naming_damage"]


_ENGINE_ERRORS = (RuntimeError, ValueError, KeyError, OSError)


class StoreDamagedError(MmembedError, RuntimeError):
    """The files of a store cannot be read; the message names the folder and what to do."""


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Turn what the engine raises over unreadable files into :class:`StoreDamagedError`.

    Errors of ours pass, and so does a full disk, which is no damage.
    """
    try:
        yield
    except (MmembedError, FileExistsError):
        raise
    except Exception as error:
        # The engine's parsers also panic over damage, with a class that cannot be imported.
        expected = isinstance(error, _ENGINE_ERRORS) or type(error).__name__ == "RustPanic"
        if not expected or "No space left" in str(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StoreDamagedError(
            f"{folder}: its files cannot be read or written ({reason}): restore them from a copy, "
            "or delete the folder and index again"
        ) from error

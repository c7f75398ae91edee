"""An index that follows its folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from codeembed.index import CodeIndex
from codeembed.results import IndexReport
from codeembed.settings import Settings
from codeembed.walk import IGNORED_DIRS
from mmembed.errors import ConfigError

__all__ = ["watch"]

_LOOK_MS = 500
_SETTLE_MS = 200


def watch(
    index: CodeIndex,
    tell: Callable[[IndexReport], None],
    *,
    stop: threading.Event | None = None,
    vectors: bool = True,
    settings: Settings | None = None,
) -> None:
    """Update an index now and after every change, until ``stop`` is set.

    Words find a change as soon as it is written; vectors follow in the pauses.

    Args:
        index: Of the folder.
        tell: Called after every update that changed something, and after the first.
        stop: Ends the watch.
        vectors: Also embed.
        settings: Of the folder.

    Raises:
        ConfigError: the package watchfiles is missing.
        StoreLockedError: another process is updating the index.
    """
    try:
        from watchfiles import DefaultFilter
        from watchfiles import watch as changes
    except ImportError as error:
        raise ConfigError("watching needs: pip install 'mmembed[watch]'") from error

    class Sources(DefaultFilter):
        """Changes outside of what no index reads."""

        ignore_dirs = tuple(IGNORED_DIRS)

        def __call__(self, change: object, path: str) -> bool:
            inside = Path(path).is_relative_to(index.folder)
            return not inside and super().__call__(change, path)  # type: ignore[arg-type]

    chosen = settings or Settings()

    def update() -> IndexReport:
        return index.update(
            vectors=False,
            max_bytes=chosen.max_bytes,
            ignore=chosen.ignore,
            workers=chosen.workers or None,
        )

    found = changes(
        index.root,
        watch_filter=Sources(),
        debounce=_SETTLE_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=True,
    )
    first = True
    for changed in found:
        if first or changed:
            report = update()
            if first or report.added or report.changed or report.removed:
                tell(report)
            first = False
        elif vectors and index.waiting:
            # One batch at a time: changes are looked for in between.
            index.fill(stop=_Once())


class _Once:
    """False the first time that it is asked."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        asked, self._asked = self._asked, True
        return asked

"""A bar for long work at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from mmembed.encoded import Encoded

__all__ = ["with_progress"]


def with_progress(
    stream: Iterator[Encoded], total: int | None, show: bool | None
) -> Iterator[Encoded]:
    """The same stream, with a bar on standard error where one is wanted."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if show is None:
        show = console.is_terminal and (total is None or total > 256)
    if not show:
        return stream
    return iter(track(stream, "Encoding", total=total, console=console, transient=True))

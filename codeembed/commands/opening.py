"""Opening indexes for commands, with their settings and their progress."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from codeembed.index import CodeIndex, Progress
from codeembed.settings import Settings, read_settings
from codeembed.tokens import CodeModel
from mmembed.commands.output import Output

__all__ = ["open_index", "progress_bar", "settings_of"]


def settings_of(path: Path, model: str | None, store: Path | None) -> Settings:
    """A folder's settings, with what the command named in their place."""
    settings = read_settings(path.expanduser())
    if model is not None:
        settings = replace(settings, model=model)
    if store is not None:
        settings = replace(settings, store=str(store.expanduser().absolute()))
    return settings


def open_index(path: Path, settings: Settings) -> CodeIndex:
    """An index as the settings say."""
    model: CodeModel | None = None
    if settings.model and settings.model != "mini":
        from codeembed.model import load_model

        model = load_model(settings.model)
    # Joined to an absolute store, the folder itself counts for nothing.
    store = path.expanduser().absolute() / settings.store if settings.store else None
    return CodeIndex.open(path, model, store)


@contextmanager
def progress_bar(output: Output) -> Iterator[Progress | None]:
    """A bar on standard error, where someone looks."""
    if not output.show_progress:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show

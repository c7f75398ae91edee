"""``codeembed search`` and ``related``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from codeembed.background import start_filling
from codeembed.commands.opening import open_index, progress_bar, settings_of
from codeembed.group import search_together
from codeembed.index import CodeIndex
from codeembed.results import CodeHit
from codeembed.search import Mode
from codeembed.settings import Settings
from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output
from mmembed.errors import ConfigError, InputError
from mmembed.search.store import StoreLockedError

__all__ = ["Wanted", "related_code", "search_folders"]

_PLACE = re.compile(r"(?P<path>.+):(?P<line>\d+)")


class Wanted:
    """What hits are asked for, and how they are shown.

    Args: as the options of the command.
    """

    def __init__(
        self,
        k: int | None,
        lang: Sequence[str] | None,
        glob: Sequence[str] | None,
        kind: Sequence[str] | None,
        lines: int | None,
        output: Output,
        as_array: bool,
    ) -> None:
        self.k = k
        self.filters = {"language": lang or (), "glob": glob or (), "kind": kind or ()}
        self.lines = lines
        self.output = output
        self.as_array = as_array

    def show(self, hits: Sequence[CodeHit], settings: Settings) -> int:
        """Print hits; returns the exit status."""
        lines = settings.lines if self.lines is None else self.lines
        if self.as_array:
            records = [_record(hit, lines) for hit in hits]
            self.output.result({}, json.dumps(records, ensure_ascii=False, indent=1))
        else:
            for hit in hits:
                self.output.result(_record(hit, lines), _text(hit, lines))
        return EXIT_OK if hits else EXIT_NOTHING


def search_folders(
    query: str,
    paths: Sequence[Path],
    mode: Mode | None,
    update: bool,
    background: bool | None,
    store: Path | None,
    model: str | None,
    wanted: Wanted,
) -> int:
    """Search folders, those without an index after indexing their words."""
    first = paths[0] if paths else Path()
    if store is not None and len(paths) > 1:
        raise ConfigError("--store names one index, and several folders were given")
    settings = settings_of(first, model, store)
    others = [first.expanduser() / each for each in settings.repositories]
    with ExitStack() as stack:
        opened = []
        for number, path in enumerate([first, *paths[1:], *others]):
            own = settings if number == 0 else settings_of(path, model, None)
            index = stack.enter_context(open_index(path, own))
            opened.append((index, own))
            if not index.exists:
                wanted.output.say(f"indexing {index.root} for the first time")
            if not index.exists or update:
                _bring_up_to_date(index, own, wanted.output)
        k = settings.k if wanted.k is None else wanted.k
        chosen: Mode = mode or settings.mode  # type: ignore[assignment]
        if len(opened) == 1:
            hits = opened[0][0].search(query, k, mode=chosen, **wanted.filters)
        else:
            indexes = [index for index, _ in opened]
            hits = search_together(query, indexes, k, mode=chosen, **wanted.filters)
        status = wanted.show(hits, settings)
        fill = settings.background if background is None else background
        for index, _ in opened if fill else ():
            if waiting := index.waiting:
                wanted.output.say(
                    f"{index.root}: {waiting} chunks are found by words alone so far; "
                    "their vectors follow in the background"
                )
                start_filling(index.root, index.folder)
    return status


def related_code(
    place: str, path: Path, update: bool, store: Path | None, model: str | None, wanted: Wanted
) -> int:
    """Find what is like the code at a line."""
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InputError(place, "is not FILE:LINE", "for example src/app.py:120")
    settings = settings_of(path, model, store)
    with open_index(path, settings) as index:
        if not index.exists or update:
            _bring_up_to_date(index, settings, wanted.output)
        k = settings.k if wanted.k is None else wanted.k
        hits = index.related(_inside(match["path"], index), int(match["line"]), k, **wanted.filters)
    return wanted.show(hits, settings)


def _inside(name: str, index: CodeIndex) -> str:
    """A file as the index names it; from the root, or from where the command runs."""
    given = Path(name).expanduser()
    for path in (index.root / given, given.absolute()):
        if path.exists() and path.resolve().is_relative_to(index.root.resolve()):
            return path.resolve().relative_to(index.root.resolve()).as_posix()
    return given.as_posix()


def _bring_up_to_date(index: CodeIndex, settings: Settings, output: Output) -> None:
    had_one = index.exists
    if had_one and not index.root.is_dir():
        output.say(f"{index.root} is not there: searching the index as it is")
        return
    try:
        with progress_bar(output) as progress:
            index.update(
                progress=progress,
                vectors=False,
                max_bytes=settings.max_bytes,
                ignore=settings.ignore,
                workers=settings.workers or None,
            )
    except StoreLockedError as error:
        if not had_one:
            raise
        output.say(f"searching the index as it is: {error}")


def _record(hit: CodeHit, lines: int) -> dict[str, object]:
    return {**asdict(hit), "text": _cut(hit.text, lines)}


def _text(hit: CodeHit, lines: int) -> str:
    path = hit.path if not hit.repository else f"{hit.repository}/{hit.path}"
    head = f"{path}:{hit.start_line}-{hit.end_line}  {hit.score:.4f}"
    name = hit.breadcrumb.partition(" > ")[2]
    body = _cut(hit.text, lines)
    shown = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{head}  {name}".rstrip() + "\n" + shown


def _cut(text: str, lines: int) -> str:
    return text if lines < 0 else "\n".join(text.splitlines()[:lines])

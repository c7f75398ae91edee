"""The ``codeembed`` command. Heavy imports wait inside the commands: ``--help`` must be instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from codeembed.evaluation.command import evaluate
from codeembed.pairs.command import pairs
from codeembed.training.command import train
from codeembed.transform.command import transform
from mmembed import __version__
from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output, run

if TYPE_CHECKING:
    from codeembed.index import CodeIndex, Progress
    from codeembed.results import CodeHit, IndexReport

__all__ = ["app", "main"]

app = App(
    name="codeembed",
    version=__version__,
    help="""Search source code by meaning and by words, offline.

    Results go to standard output (JSON lines with --json), messages to standard error.
    Exit status: 0 found, 1 nothing found, 2 error, 130 interrupted.
    """,
    help_format="markdown",
)

Store = Annotated[
    Path | None, Parameter(help="Where the index lives; by default .codeembed inside the folder.")
]
Model = Annotated[
    str | None,
    Parameter(help="'mini', a folder, or a Hugging Face id; by default the index's own."),
]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="JSON lines on standard output.")
]
Quiet = Annotated[
    bool, Parameter(name=["--quiet", "-q"], negative="", help="No messages and no progress.")
]
Mode = Literal["hybrid", "dense", "lexical"]

_SHOWN_SKIPS = 20
_PLAIN_REASONS = ("ignored", "default-ignored-dir", "symlink")


@app.command
def index(
    path: Path = Path(),
    /,
    *,
    store: Store = None,
    model: Model = None,
    max_bytes: int = 1 << 20,
    workers: int | None = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Index a folder of source code; again, and only what changed is read by the model.

    For example:

        codeembed index

        codeembed index ~/project --json

    Args:
        path: The folder.
        max_bytes: Larger files are skipped.
        workers: Processes that cut files; by default as many as help.
    """
    output = Output(json=json, quiet=quiet)
    with _open(path, store, model) as code_index, _progress(output) as progress:
        report = code_index.update(max_bytes=max_bytes, workers=workers, progress=progress)
    _tell_skipped(report, output)
    output.result(report.as_dict(), _summary(report))
    return EXIT_OK if report.files else EXIT_NOTHING


@app.command
def search(
    query: str,
    path: Path = Path(),
    /,
    *,
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 10,
    mode: Mode = "hybrid",
    lang: Annotated[list[str] | None, Parameter(name=["--lang", "-l"], negative="")] = None,
    glob: Annotated[list[str] | None, Parameter(name=["--glob", "-g"], negative="")] = None,
    kind: Annotated[list[str] | None, Parameter(negative="")] = None,
    lines: Annotated[int, Parameter(name=["--lines", "-n"])] = 5,
    update: bool = True,
    store: Store = None,
    model: Model = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Search a folder of source code; a folder without an index is indexed first.

    For example:

        codeembed search "retry a request with backoff"

        codeembed search parse_args ~/project -k 3 --lang py --glob 'src/**'

        codeembed search --mode lexical -- "--no-color"

    Args:
        query: Words or a symbol; put "--" before one that begins with a dash.
        path: The folder that was indexed.
        k: How many hits at most.
        mode: How to match: by vector, by words, or both.
        lang: Only this language; give it again for more.
        glob: Only these paths, with patterns as in .gitignore ("!" takes out); again for more.
        kind: Only chunks that define a function, method, class, section, ...; again for more.
        lines: Lines shown of each hit; 0 for none, -1 for all.
        update: Bring an existing index up to date before searching.
    """
    output = Output(json=json, quiet=quiet)
    with _open(path, store, model) as code_index:
        if not code_index.exists:
            output.say(f"indexing {code_index.root} for the first time")
        if not code_index.exists or update:
            _bring_up_to_date(code_index, output)
        hits = code_index.search(
            query, k, mode=mode, language=lang or (), glob=glob or (), kind=kind or ()
        )
    for hit in hits:
        output.result(_record(hit, lines), _text(hit, lines))
    return EXIT_OK if hits else EXIT_NOTHING


@app.command
def status(path: Path = Path(), /, *, store: Store = None, json: AsJson = False) -> int:
    """Describe an index: what it holds, which model made it, and what was left out.

    For example:

        codeembed status ~/project
    """
    output = Output(json=json)
    with _open(path, store, None) as code_index:
        state = code_index.status()
    last = state.pop("last_update")
    lines = [f"{name:14} {value}" for name, value in state.items()]
    if isinstance(last, dict):
        reasons = last["skipped_by_reason"].items()
        lines += [f"skipped        {count} {reason}" for reason, count in sorted(reasons)]
        lines += [f"failed         {each}" for each in last["failed"]]
    output.result({**state, "last_update": last}, "\n".join(lines))
    return EXIT_OK


app.command(transform)
app.command(pairs)
app.command(evaluate, name="eval")
app.command(train)


def _open(path: Path, store: Path | None, model: str | None) -> CodeIndex:
    from codeembed.index import CodeIndex

    if model is None:
        return CodeIndex.open(path, store=store)
    from mmembed.embedder import Embedder

    return CodeIndex.open(path, Embedder.from_pretrained(model), store)


def _bring_up_to_date(code_index: CodeIndex, output: Output) -> None:
    from mmembed.search.store import StoreLockedError

    had_one = code_index.exists
    try:
        with _progress(output) as progress:
            code_index.update(progress=progress)
    except StoreLockedError as error:
        if not had_one:
            raise
        output.say(f"searching the index as it is: {error}")


@contextmanager
def _progress(output: Output) -> Iterator[Progress | None]:
    if not output.show_progress:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _summary(report: IndexReport) -> str:
    skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(report.skipped_by_reason.items()))
    by_lines = report.by_method["lines"] + report.by_method["lines-after-timeout"]
    return "\n".join(
        [
            f"{report.files} files, {report.chunks} chunks, {report.bytes} bytes "
            f"in {report.seconds:.1f} s",
            f"{report.added} added, {report.changed} changed, {report.removed} removed, "
            f"{report.unchanged} unchanged; {report.embedded} chunks embedded, "
            f"{report.reused} reused",
            f"{by_lines} files cut by lines, {len(report.not_utf8)} not UTF-8",
            f"skipped: {skipped or 'nothing'}",
        ]
    )


def _tell_skipped(report: IndexReport, output: Output) -> None:
    """Name what a user may not expect to be left out; what rules leave out is only counted."""
    telling = [each for each in report.skipped if each.reason not in _PLAIN_REASONS]
    for each in telling[:_SHOWN_SKIPS]:
        detail = f" ({each.detail})" if each.detail else ""
        output.say(f"skipped {each.path}: {each.reason}{detail}")
    if len(telling) > _SHOWN_SKIPS:
        output.say(f"... and {len(telling) - _SHOWN_SKIPS} more: codeembed status --json")
    for failure in report.failed[:_SHOWN_SKIPS]:
        output.say(f"failed {failure}")


def _record(hit: CodeHit, lines: int) -> dict[str, object]:
    return {**asdict(hit), "text": _cut(hit.text, lines)}


def _text(hit: CodeHit, lines: int) -> str:
    head = f"{hit.path}:{hit.start_line}-{hit.end_line}  {hit.score:.4f}"
    name = hit.breadcrumb.partition(" > ")[2]
    body = _cut(hit.text, lines)
    shown = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{head}  {name}".rstrip() + "\n" + shown


def _cut(text: str, lines: int) -> str:
    return text if lines < 0 else "\n".join(text.splitlines()[:lines])


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its status."""
    sys.exit(run(app, arguments))


if __name__ == "__main__":
    main()

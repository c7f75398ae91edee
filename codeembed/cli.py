"""The ``codeembed`` command. Heavy imports wait inside the commands: ``--help`` must be instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from codeembed.evaluation.command import evaluate
from codeembed.pairs.command import pairs
from codeembed.training.command import train
from codeembed.transform.command import transform
from mmembed import __version__
from mmembed.commands.output import EXIT_OK, Output, run

__all__ = ["app", "main"]

app = App(
    name="codeembed",
    version=__version__,
    help="""Search source code by meaning and by words, offline.

    Results go to standard output (JSON lines with --jsonl), messages to standard error.
    Exit status: 0 found, 1 nothing found, 2 error, 130 interrupted. A folder's .codeembed.toml
    holds settings: model, store, repositories, ignore, max_bytes, workers, k, mode, lines,
    background.
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
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="JSON on standard output.")]
AsLines = Annotated[
    bool, Parameter(name=["--jsonl"], negative="", help="JSON lines: an object a hit.")
]
Quiet = Annotated[
    bool, Parameter(name=["--quiet", "-q"], negative="", help="No messages and no progress.")
]
Count = Annotated[int | None, Parameter(name=["--k", "-k"], help="How many hits at most.")]
Lang = Annotated[
    list[str] | None,
    Parameter(name=["--lang", "-l"], negative="", help="Only this language; again for more."),
]
Glob = Annotated[
    list[str] | None,
    Parameter(
        name=["--glob", "-g"],
        negative="",
        help='Only these paths, as in .gitignore ("!" takes out); again for more.',
    ),
]
Kind = Annotated[
    list[str] | None,
    Parameter(
        negative="",
        help="Only chunks that define a function, method, class, section, skeleton, ...",
    ),
]
Lines = Annotated[
    int | None,
    Parameter(name=["--lines", "-n"], help="Lines shown of each hit; 0 for none, -1 for all."),
]
Mode = Literal["hybrid", "dense", "static", "lexical"]


@app.command
def index(
    path: Path = Path(),
    /,
    *,
    store: Store = None,
    model: Model = None,
    max_bytes: int | None = None,
    workers: int | None = None,
    vectors: bool = True,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Index a folder of source code; again, and only what changed is read by the model.

    Words are searchable as soon as files are cut, vectors as they come; an interrupted run goes on
    where it was.

    For example:

        codeembed index

        codeembed index ~/project --json

    Args:
        path: The folder.
        max_bytes: Larger files are skipped.
        workers: Processes that cut files; by default as many as help.
        vectors: Also embed every chunk.
    """
    from codeembed.commands.indexing import index_folder

    output = Output(json=json, quiet=quiet)
    return index_folder(path, store, model, max_bytes, workers, vectors, output)


@app.command
def search(
    query: str,
    paths: list[Path] | None = None,
    /,
    *,
    k: Count = None,
    mode: Mode | None = None,
    lang: Lang = None,
    glob: Glob = None,
    kind: Kind = None,
    lines: Lines = None,
    update: bool = True,
    background: bool | None = None,
    store: Store = None,
    model: Model = None,
    json: AsJson = False,
    jsonl: AsLines = False,
    quiet: Quiet = False,
) -> int:
    """Search folders of source code; one without an index is indexed first, by its words.

    For example:

        codeembed search "retry a request with backoff"

        codeembed search parse_args ~/project ~/library -k 3 --lang py --glob 'src/**'

        codeembed search --mode lexical -- "--no-color"

    Args:
        query: Words or a symbol; put "--" before one that begins with a dash.
        paths: The folders that were indexed.
        mode: How to match: by the model's vectors, by vectors of words, by words, or by all.
        update: Bring existing indexes up to date before searching.
        background: Let vectors that are missing follow in a process of its own.
    """
    from codeembed.commands.searching import Wanted, search_folders

    wanted = Wanted(k, lang, glob, kind, lines, Output(json=jsonl, quiet=quiet), json)
    return search_folders(query, paths or [], mode, update, background, store, model, wanted)


@app.command
def related(
    place: str,
    path: Path = Path(),
    /,
    *,
    k: Count = None,
    lang: Lang = None,
    glob: Glob = None,
    kind: Kind = None,
    lines: Lines = None,
    update: bool = True,
    store: Store = None,
    model: Model = None,
    json: AsJson = False,
    jsonl: AsLines = False,
    quiet: Quiet = False,
) -> int:
    """Find code that is like the code at FILE:LINE.

    For example:

        codeembed related net/retry.py:40

        codeembed related net/retry.py:40 ~/project --lang go

    Args:
        place: FILE:LINE, from the folder or from here.
        path: The folder that was indexed.
        update: Bring an existing index up to date before searching.
    """
    from codeembed.commands.searching import Wanted, related_code

    wanted = Wanted(k, lang, glob, kind, lines, Output(json=jsonl, quiet=quiet), json)
    return related_code(place, path, update, store, model, wanted)


@app.command
def watch(
    path: Path = Path(),
    /,
    *,
    store: Store = None,
    model: Model = None,
    vectors: bool = True,
    json: AsJson = False,
) -> int:
    """Keep an index in line with its folder until interrupted.

    For example:

        codeembed watch ~/project

    Args:
        path: The folder.
        vectors: Also embed, in the pauses.
    """
    from codeembed.commands.indexing import watch_folder

    return watch_folder(path, store, model, vectors, Output(json=json))


@app.command
def status(path: Path = Path(), /, *, store: Store = None, json: AsJson = False) -> int:
    """Describe an index: what it holds, which model made it, and what was left out.

    For example:

        codeembed status ~/project
    """
    from codeembed.commands.indexing import tell_status

    return tell_status(path, store, Output(json=json))


@app.command
def mcp(roots: list[Path] | None = None, /) -> int:
    """Serve search, related, status and reindex to agents, over standard input and output (MCP).

    For example:

        codeembed mcp ~/project ~/library

    Args:
        roots: Folders that may be reached; nothing outside of them is, links followed.
    """
    from codeembed.mcp_server import serve

    serve(roots or [Path()])
    return EXIT_OK


app.command(transform)
app.command(pairs)
app.command(evaluate, name="eval")
app.command(train)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its status."""
    sys.exit(run(app, arguments))


if __name__ == "__main__":
    main()

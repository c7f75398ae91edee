"""The ``mmembed`` command. Heavy imports wait inside the commands: ``--help`` must be instant."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import mmembed
from mmembed.commands.distill import distill
from mmembed.commands.evaluate import evaluate
from mmembed.commands.mcp import mcp
from mmembed.commands.output import Output, run
from mmembed.commands.probe import probe
from mmembed.commands.report import compare, report

__all__ = ["app", "main"]

app = App(
    name="mmembed",
    version=mmembed.__version__,
    help="""Embed, index and search text, images, video and document pages with one model.

    Results go to standard output (JSON lines with --json), messages to standard error.
    Exit status: 0 success, 1 nothing found, 2 error, 130 interrupted.
    """,
    help_format="markdown",
)

Model = Annotated[str, Parameter(help="'mini', a folder, or a Hugging Face id.")]
OwnModel = Annotated[
    str | None,
    Parameter(
        help="'mini', a folder, or a Hugging Face id; by default the model that made the index, "
        "and 'mini' for a new one."
    ),
]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="JSON lines on standard output.")
]
Quiet = Annotated[
    bool, Parameter(name=["--quiet", "-q"], negative="", help="No messages and no progress.")
]
Mode = Literal["hybrid", "dense", "text"]


def _no_options(_: object, texts: list[str] | None) -> None:
    """Where "-" may stand, so might a mistyped option."""
    for text in texts or []:
        if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", text):
            raise ValueError(f'unknown option "{text}"; a text that looks like one comes by "-"')


@app.command
def embed(
    texts: Annotated[
        list[str] | None, Parameter(allow_leading_hyphen=True, validator=_no_options)
    ] = None,
    /,
    *,
    file: Annotated[list[Path] | None, Parameter(name=["--file", "-f"])] = None,
    model: Model = "mini",
    role: Literal["query", "document"] = "document",
    dim: int | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    quiet: Quiet = False,
) -> int:
    """Embed texts and media files.

    For example:

        mmembed embed "two dogs in the snow" --role query

        mmembed embed --file photo.jpg --file paper.pdf --output vectors.npy

        cat lines.txt | mmembed embed - > vectors.jsonl

    Args:
        texts: Texts to embed; "-" reads one text a line from standard input.
        file: A photo, clip, PDF, text file or folder; give it again for more.
        role: The side of the search that the vectors are for.
        dim: Keep the first DIM dimensions, normalised again.
        output: Write a float32 array (.npy) with the names beside it (.names.txt), instead of
            JSON lines on standard output.
    """
    from mmembed.commands.embed import embed_inputs

    return embed_inputs(texts or [], file or [], model, role, dim, output, Output(quiet=quiet))


@app.command
def index(
    paths: list[Path],
    /,
    *,
    into: Path | None = None,
    model: OwnModel = None,
    late: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Index folders of photos, clips, PDF pages and texts; again, and only changes are read.

    For example:

        mmembed index ~/Pictures

        mmembed index ~/Pictures ~/Papers --into library

    Args:
        paths: Files or folders to index.
        into: Where the index lives; by default ".mmembed" inside the first folder.
        late: Keep a vector a token in a new index, for "search --maxsim".
    """
    from mmembed.commands.search import index_paths

    return index_paths(paths, into, model, late, Output(json=json, quiet=quiet))


@app.command
def bulk(
    source: str,
    output: Path,
    /,
    *,
    into: Path | None = None,
    model: Model = "mini",
    role: Literal["query", "document"] = "document",
    dim: int = 0,
    dtype: Literal["float16", "float32"] = "float16",
    runner: Literal["local", "ray"] = "local",
    workers: int = 1,
    gpus: float = 0.0,
    address: str | None = None,
    shard: str | None = None,
    max_error_rate: float = 0.5,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Embed very many items; after any accident, run it again and it goes on.

    For example:

        mmembed bulk passages.jsonl vectors/

        mmembed bulk s3://bucket/photos/ vectors/ --into library --runner ray --workers 16

        mmembed bulk photos/ vectors/ --shard 3/8

    Rows are objects with text, image, video or document, and anything else as metadata.

    Args:
        source: JSONL, Parquet or WebDataset (tar), a folder of them or of media; a path or a URI.
        output: Folder of the job, with parts, errors and what is done.
        into: Collect at the end: into a table (NAME.lance) or an index (a folder).
        role: The side of the search that the vectors are for.
        dim: Keep the first DIM dimensions, normalised again.
        runner: "ray" runs on Ray Data, from this machine to a cluster that shares OUTPUT.
        workers: Processes, each with a model.
        gpus: GPUs of each worker, under Ray.
        address: Of a running Ray cluster.
        shard: Do only the third of eight parts: 3/8; for job arrays.
        max_error_rate: Stop when a larger share of a shard's rows is bad.
    """
    from mmembed.bulk.job import Settings
    from mmembed.commands.bulk import Running, bulk_embed

    settings = Settings(model, role, dim, dtype, max_error_rate)
    running = Running(runner, workers, gpus, address, shard)
    return bulk_embed(source, output, settings, running, into, Output(json=json, quiet=quiet))


@app.command
def search(
    query: str | None = None,
    path: Path = Path(),
    /,
    *,
    image: Path | None = None,
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 10,
    filter: str | None = None,
    mode: Mode = "hybrid",
    maxsim: int = 0,
    reranker: str | None = None,
    rerank: int = 20,
    model: OwnModel = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Search an index by text, by image, or by both at once.

    For example:

        mmembed search "red bicycle" ~/Pictures -k 5

        mmembed search ~/Pictures --image photo.jpg

        mmembed search "mean temperature by month" library --filter 'modality == "document"'

    Args:
        query: What to look for; leave it out with --image.
        path: An index, or the folder that was indexed.
        image: An image to search by.
        k: How many hits at most.
        filter: Condition on a hit's fields, applied before the best k are taken.
        mode: How text queries are matched: by vector, by words, or both.
        maxsim: How many candidates are ranked again by their token vectors (an index --late).
        reranker: A model that reads query and hit together and has the last word.
        rerank: How many hits it reads.
    """
    from mmembed.commands.search import Steps, search_index

    if image is not None and query is not None and path == Path() and Path(query).is_dir():
        path, query = Path(query), None  # `mmembed search FOLDER --image FILE`
    output = Output(json=json, quiet=quiet)
    steps = Steps(mode, maxsim, reranker, rerank)
    return search_index(query, path, image, k, filter, steps, model, output)


@app.command
def info(target: str = "mini", /, *, json: AsJson = False) -> int:
    """Describe a model, or an index and what it holds.

    For example:

        mmembed info mini

        mmembed info ~/Pictures
    """
    from mmembed.commands.info import describe

    return describe(target, Output(json=json))


@app.command
def doctor(*, json: AsJson = False) -> int:
    """Check this installation: versions, decoders, optional parts, and one real embedding."""
    from mmembed.commands.info import examine

    return examine(Output(json=json))


@app.command
def serve(
    path: Path | None = None,
    /,
    *,
    code: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: Model = "mini",
    reranker: list[str] | None = None,
    api_key_file: Path | None = None,
    fetch_from: list[str] | None = None,
    index_from: list[Path] | None = None,
    allow_remote: bool = False,
) -> int:
    """Serve the embedding API of OpenAI's clients, and a search page on an index.

    For example:

        mmembed serve

        mmembed serve ~/Pictures

        mmembed serve library --code ~/project --port 9000

    Args:
        path: An index, or the folder that was indexed; the API alone without.
        code: A folder indexed by codeembed, searched on the same page.
        reranker: A model for /v1/rerank.
        api_key_file: Ask for one of the keys in this file, one a line (or in MMEMBED_API_KEY).
        fetch_from: A host that media may be fetched from by URL; none by default.
        index_from: A folder that may be indexed from the page; none by default.
        allow_remote: Let HOST be an address that other machines reach, without a key.
    """
    from mmembed.server.app import run as run_server
    from mmembed.server.security import read_keys

    run_server(
        path,
        code,
        host=host,
        port=port,
        model=model,
        allow_remote=allow_remote,
        rerankers=reranker or (),
        keys=read_keys(api_key_file),
        fetch_from=fetch_from or (),
        index_from=index_from or (),
    )
    return 0


@app.command
def synthesize(
    method: str,
    seeds: Path,
    into: Path,
    /,
    *,
    endpoint: str,
    model: str,
    examples: Path | None = None,
    cache: Path | None = None,
    budget: int | None = None,
    concurrency: int = 8,
    json: AsJson = False,
) -> int:
    """Make training rows with a language model behind an OpenAI-compatible endpoint.

    For example:

        mmembed synthesize inpars passages.jsonl rows.jsonl --endpoint http://host:8000/v1 --model M

    The key is read from OPENAI_API_KEY. A run that is stopped goes on where it was.

    Args:
        method: inpars, promptagator, gecko, e5-mistral, promptriever, judge, page-queries or mme5.
        seeds: JSONL with what the method asks about: text, task, query and positive, or image.
        into: JSONL of training rows.
        endpoint: URL, up to and with /v1.
        examples: JSONL with text and query, for promptagator.
        cache: Where answers are kept; INTO.answers.jsonl by default.
        budget: Tokens that may be spent in all.
    """
    from mmembed.commands.synthesize import synthesize as make

    return make(
        method,
        seeds,
        into,
        endpoint,
        model,
        examples,
        cache,
        budget,
        concurrency,
        Output(json=json),
    )


@app.command
def train(
    recipe: Path,
    overrides: list[str] | None = None,
    /,
    *,
    stop_after: int | None = None,
    show: bool = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train a text encoder by a recipe; run it again after an interruption, and it goes on.

    For example:

        mmembed train configs/recipes/text/e5.yaml

        mmembed train configs/recipes/text/e5.yaml size=tiny output=/tmp/try

        mmembed train configs/recipes/text/e5.yaml stages.finetune.schedule.lr=1e-5 --show

        accelerate launch -m mmembed.cli train configs/recipes/text/e5.yaml

    Args:
        recipe: A YAML file of stages; see configs/recipes.
        overrides: KEY=VALUE pairs; parts of keys are joined by dots.
        stop_after: Stop with a checkpoint after so many steps of a stage.
        show: Print the recipe with every default filled in, and train nothing.
    """
    from mmembed.commands.train import train_recipe

    output = Output(json=json, quiet=quiet)
    return train_recipe(recipe, overrides or [], stop_after, show, output)


app.command(distill)
app.command(evaluate, name="eval")
app.command(mcp)
app.command(probe)
app.command(report)
app.command(compare)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its status."""
    sys.exit(run(app, arguments))


if __name__ == "__main__":
    main()

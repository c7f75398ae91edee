"""``mmembed mcp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mmembed.commands.output import EXIT_OK

__all__ = ["mcp"]


def mcp(
    path: Path = Path(),
    /,
    *,
    model: Annotated[
        str | None,
        Parameter(help="'mini', a folder, or a Hugging Face id; by default the index's own."),
    ] = None,
) -> int:
    """Serve an index to agents by the Model Context Protocol, over standard input and output.

    For example:

        mmembed mcp ~/Pictures

    Args:
        path: An index, or the folder that was indexed.
    """
    from mmembed.mcp_server import serve_mcp
    from mmembed.search.index import Index

    with Index.open(path.expanduser(), model, create=False) as index:
        serve_mcp(index)
    return EXIT_OK

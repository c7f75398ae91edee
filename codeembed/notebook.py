"""Jupyter notebooks as the scripts that they are.

What lies in a ``.ipynb`` file is JSON with pictures of results in it; what people wrote are cells.
They are shown in the percent format that editors and jupytext know: text becomes comments.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["MARK", "notebook_script"]

MARK = b"# %%"


def notebook_script(data: bytes) -> bytes | None:
    """The cells of a notebook as one Python script; None where it is no notebook.

    Outputs and attachments are left out. Lines that only IPython understands (``%magic``,
    ``!command``) become comments, so that the rest of their cell parses.
    """
    try:
        notebook = json.loads(data)
        # Notebooks before version 4 keep their cells in worksheets.
        sheets = notebook.get("worksheets") or [notebook]
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        parts = [_cell(cell) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return b"\n".join(parts)


def _cell(cell: dict[str, Any]) -> bytes:
    kind = str(cell.get("cell_type", "code"))
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(map(str, source))
    lines = text.splitlines()
    if kind == "code":
        marked = MARK.decode()
        shown = [f"# {line}" if line.lstrip().startswith(("%", "!")) else line for line in lines]
    else:
        marked = f"{MARK.decode()} [{kind}]"
        shown = [f"# {line}".rstrip() for line in lines]
    return "".join(f"{line}\n" for line in (marked, *shown)).encode("utf-8", "replace")

"""Rows that a stage writes for later ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mmembed.gpte.outcomes import Context, Outcome

__all__ = ["TINY_ROWS", "written"]

TINY_ROWS = 24
"""Rows that stages read at ``size: tiny``."""


def written(
    context: Context, rows: Iterable[Mapping[str, Any]], metrics: Mapping[str, float]
) -> Outcome:
    """The outcome of a stage whose rows are in ``rows.jsonl``, whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    context.folder.mkdir(parents=True, exist_ok=True)
    file, partial = context.folder / "rows.jsonl", context.folder / ".rows.jsonl.partial"
    with partial.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(file)
    return Outcome(context.folder, rows=file, metrics=metrics)

"""Rows that stages read, and those that they write for later ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmembed.gpte.config import DataConfig
from mmembed.gpte.outcomes import Context, Outcome

if TYPE_CHECKING:
    from mmembed.gpte.data.examples import Example
    from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["TINY_ROWS", "Array", "few_rows", "read", "tiny_embedder", "unit_vectors", "written"]

Array = np.ndarray[Any, np.dtype[Any]]

TINY_ROWS = 24
"""Rows that stages read at ``size: tiny``."""


def few_rows(data: DataConfig) -> DataConfig:
    """The same sources, :data:`TINY_ROWS` of each."""
    return replace(data, sources=tuple(replace(one, limit=TINY_ROWS) for one in data.sources))


def tiny_embedder(model: str, family: str, folder: Path) -> str:
    """A tiny random model in the place of a folder or a hub name; stages keep their names."""
    from mmembed.gpte.tiny import tiny_model

    return model if model.startswith("stage://") else str(tiny_model(family, folder / family))


def read(data: DataConfig, context: Context) -> list[Example]:
    """The rows of all sources.

    Raises:
        ConfigError, InputError: as :func:`mmembed.gpte.data.examples.examples_of`.
    """
    from mmembed.gpte.data.examples import Report, examples_of

    data = context.data(data)
    return [
        one
        for source in data.sources
        for one in examples_of(source, Report(source.path), data.bad_rows)
    ]


def unit_vectors(encoder: TextEncoder, texts: Sequence[str], role: str | None = None) -> Array:
    """``(n, d)`` float32 unit vectors of texts."""
    from torch.nn import functional as F

    from mmembed.gpte.encoding import encode

    vectors: Array = F.normalize(encode(encoder, texts, role=role), dim=1).numpy()
    return vectors


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

"""What a probe is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks.tasks import Array

__all__ = ["Finding", "Instructable", "Probe", "needs_modalities", "unit"]

Table: TypeAlias = Mapping[str, Mapping[str, float]]


class Instructable(Protocol):
    """What can be probed; an :class:`mmembed.Embedder` is one."""

    def encode_query(self, inputs: Any, **options: Any) -> Any: ...
    def encode_document(self, inputs: Any, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found.

    Attributes:
        figures: single values by name.
        tables: values by row and column, such as a curve's points by strength.
        notes: lines for people, such as texts that an attack gave back.
    """

    figures: Mapping[str, float]
    tables: Mapping[str, Table] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "figures": {key: round(float(value), 5) for key, value in self.figures.items()},
            "tables": {
                name: {
                    row: {key: round(float(value), 5) for key, value in cells.items()}
                    for row, cells in table.items()
                }
                for name, table in self.tables.items()
            },
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Probe:
    """A question about a model that benchmarks do not ask.

    Attributes:
        name: what ``mmembed probe`` calls it.
        about: one line.
        reference: the paper that it follows.
        reading: how to read its figures.
        needs: paths below the data folder; empty where it brings its own words.
        run: from a model and the data folder to what it found.
    """

    name: str
    about: str
    reference: str
    reading: str
    needs: tuple[str, ...]
    run: Callable[[Instructable, Path], Finding]


def needs_modalities(model: Any, *wanted: str) -> None:
    """Raise where a model cannot read what a probe shows it.

    Raises:
        ConfigError: names what is missing.
    """
    has = getattr(model, "modalities", None)
    if has is not None and (missing := set(wanted) - set(has)):
        raise ConfigError(f"this probe shows {', '.join(sorted(missing))}: choose another model")


def unit(vectors: Any) -> Array:
    """``(n, d)`` float32 with rows of length one."""
    found = np.asarray(vectors, dtype=np.float32)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))

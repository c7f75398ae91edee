"""What the processes of one step have to agree on, before any of them waits for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mmembed.errors import ConfigError
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.distributed import exchanged
from mmembed.gpte.rows import Row

__all__ = ["agreed_rounds"]

_COLUMNS = ("query", "positive", "negative")


def agreed_rounds(
    batch: ExampleBatch,
    chunks: Mapping[str, Sequence[Sequence[Row]]],
    device: torch.device | str,
) -> dict[str, int]:
    """How many chunks of each column the process with most has; a collective call.

    Args:
        batch: this process's rows.
        chunks: the columns that are read, in chunks.

    Raises:
        ConfigError: some processes hold a column, or negatives, that others lack; raised on every
            process alike.
    """
    mine = [len(chunks.get(name, ())) for name in _COLUMNS]
    every = exchanged([*mine, batch.negatives_per_query], device)
    kinds = {(*(count > 0 for count in counts[:-1]), counts[-1]) for counts in every}
    if len(kinds) > 1:
        raise ConfigError(
            "one process holds rows with a positive or negatives that the rows of another lack: "
            "they cannot share a step; set batch.order: homogeneous"
        )
    return dict(zip(_COLUMNS, map(max, zip(*every, strict=True)), strict=False))

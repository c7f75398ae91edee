"""The candidates of a contrastive batch: gathered vectors and what is known of each of them.

Rows are this process's queries (or positives), columns are the vectors of all processes in rank
order: pair ``i`` of the whole batch is column ``i`` of its queries and positives, and columns
``i * k`` to ``i * k + k - 1`` of its hard negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import Shard, gather, gather_padded, shard_of
from mmembed.gpte.objectives.base import dense_of, positive_of, unit, wide
from mmembed.gpte.protocols import QUEUES, Columns, Outputs

__all__ = [
    "Candidates",
    "Facts",
    "Head",
    "Kind",
    "View",
    "collect",
    "gather_outputs",
    "head_of",
    "multi_of",
]

Head = Literal["dense", "multi", "sparse"]
Kind = Literal["query", "positive", "negative", "queue", "query_queue"]
"""What a candidate is; queues hold the positives, or the queries, of earlier batches."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of ``c`` texts; a field is None where the data does not say.

    Attributes:
        text: ``(c,)`` int64 content hash of the text itself.
        query: ``(c,)`` int64 content hash of its pair's query.
        positive: ``(c,)`` int64 content hash of its pair's positive.
        modality: ``(c,)`` int64 bitmask of its modalities.
        guide: ``(c, g)`` unit vectors of a frozen guide model.
    """

    text: Tensor | None = None
    query: Tensor | None = None
    positive: Tensor | None = None
    modality: Tensor | None = None
    guide: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Facts:
        """The same facts with every present tensor changed."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return Facts(**{name: None if t is None else change(t) for name, t in found.items()})


@dataclass(frozen=True, slots=True)
class Candidates:
    """A batch ready to be scored.

    Attributes:
        shard: where this process's pairs lie.
        rows: local outputs, by ``"query"`` and ``"positive"``.
        columns: outputs of all processes, by kind; queues have no gradient.
        row_facts, column_facts: what is known of them.
        per_query: hard negatives per query.
    """

    shard: Shard
    rows: dict[Kind, Outputs]
    columns: dict[Kind, Outputs]
    row_facts: dict[Kind, Facts]
    column_facts: dict[Kind, Facts]
    per_query: int


@dataclass(frozen=True, slots=True)
class View:
    """One tile of one block, as a mask sees it.

    Attributes:
        row_kind, column_kind: what is scored against what.
        rows: facts of the tile's ``r`` rows.
        columns: facts of the block's ``c`` columns.
        scores: ``(r, c)`` scores before the temperature, detached.
        positive: ``(r,)`` scores of the rows' own positive pairs, detached.
        guide: ``(r,)`` the guide's scores of the rows' own positive pairs, or None.
        modality: ``(r,)`` modality bitmask of the rows' positives, or None.
    """

    row_kind: Kind
    column_kind: Kind
    rows: Facts
    columns: Facts
    scores: Tensor
    positive: Tensor
    guide: Tensor | None
    modality: Tensor | None


def head_of(outputs: Outputs, head: Head) -> Tensor:
    """The tensor of one head, at least float32.

    Raises:
        ConfigError: the encoder was not asked for it.
    """
    found: Tensor | None = getattr(outputs, head)
    if found is None:
        raise ConfigError(f"this objective scores the {head} head, and the encoder gives none")
    return wide(found)


def gather_outputs(outputs: Outputs, shard: Shard, head: Head) -> Outputs:
    """One head's outputs on all processes."""
    if head != "multi":
        head_of(outputs, head)
        return _outputs(head, gather(getattr(outputs, head), shard))
    vectors, mask = multi_of(outputs)
    return Outputs(multi=gather_padded(vectors, shard), multi_mask=gather_padded(mask, shard))


def _outputs(head: Head, values: Tensor) -> Outputs:
    outputs = Outputs()
    setattr(outputs, head, values)
    return outputs


def multi_of(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Token vectors ``(n, t, k)``, at least float32, and their ``(n, t)`` mask."""
    vectors = head_of(outputs, "multi")
    mask = outputs.multi_mask
    return vectors, vectors.new_ones(vectors.shape[:2]).bool() if mask is None else mask.bool()


def collect(columns: Columns, head: Head, kinds: Sequence[Kind], *, facts: bool) -> Candidates:
    """Gather what the objective scores.

    Args:
        head: which outputs are scored.
        kinds: the kinds of columns wanted; negatives and queues are left out where the batch has
            none.
        facts: whether hashes, modalities and guide vectors are wanted too.
    """
    query, positive = columns.query, positive_of(columns)
    local = head_of(query, head)
    per_query = columns.negatives_per_query if columns.negative is not None else 0
    shard = shard_of(len(local), local.device, same=per_query)
    rows: dict[Kind, Outputs] = {"query": query, "positive": positive}
    mine = slice(shard.start, shard.start + shard.rows)
    row_facts: dict[Kind, Facts] = {}
    column_facts: dict[Kind, Facts] = {}
    for kind in ("query", "positive"):
        known = _known(columns, kind, shard) if facts else {}
        column_facts[kind] = Facts(**known)
        row_facts[kind] = column_facts[kind].map(lambda t: t[mine])
    found: dict[Kind, Outputs] = {
        kind: gather_outputs(rows[kind], shard, head)
        for kind in ("query", "positive")
        if kind in kinds
    }
    if per_query and "negative" in kinds:
        assert columns.negative is not None
        found["negative"] = gather_outputs(columns.negative, shard.times(per_query), head)
        known = _known(columns, "negative", shard.times(per_query)) if facts else {}
        column_facts["negative"] = Facts(**known)
    for queue in QUEUES.values():
        if queue in columns.shared and queue in kinds:
            found[queue] = _outputs(head, columns.shared[queue].detach())
            column_facts[queue] = Facts(text=columns.shared.get(f"{queue}_hash"))
    return Candidates(shard, rows, found, row_facts, column_facts, per_query)


def _known(columns: Columns, kind: Kind, shard: Shard) -> dict[str, Tensor]:
    """The facts of one column on all processes."""
    names = {"text": f"{kind}_hash", "modality": f"{kind}_modality"}
    if kind == "positive":
        names["modality"] = "modality"
    if kind != "negative":
        names |= {"query": "query_hash", "positive": "positive_hash"}
    known = {
        fact: gather(columns.meta[name], shard)
        for fact, name in names.items()
        if name in columns.meta
    }
    if kind in columns.guide:
        known["guide"] = gather(unit(dense_of(columns.guide[kind])).detach(), shard)
    return known

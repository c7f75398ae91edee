"""What an index gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.search.layout import Location, user_metadata
from mmembed.search.ranking import Ranked
from mmembed.search.store import Record, StoreStats, Value

__all__ = ["AddReport", "Hit", "IndexStats", "hit_of", "uri_of"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One item found.

    Attributes:
        id: the item's id.
        score: what the hits are ordered by, higher is better; its meaning depends on the mode.
        scores: the score of each step that saw the item: ``dense`` (cosine similarity), ``text``
            (BM25), ``rrf`` (reciprocal rank fusion), ``summary`` (dot product of the fixed
            dimensional encodings), ``maxsim`` (late interaction, summed over the query's tokens),
            ``rerank`` (the reranker's).
        uri: absolute path or URL of the media, with ``#page=3`` where it is a page; None where the
            item did not come from a file.
        modality: text, image, video or document.
        page: page number from 1, or None.
        text: the item's text, caption or page text; may be empty, and is cut when long.
        metadata: what the user gave with the item.
    """

    id: str
    score: float
    scores: Mapping[str, float]
    uri: str | None
    modality: str
    page: int | None
    text: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class AddReport:
    """What one call of ``add`` did, counted in items: a PDF of ten pages is ten items.

    Attributes:
        added: new items.
        updated: items whose content or metadata changed.
        unchanged: items that were there already.
        deleted: items whose file, page or passage is gone.
        skipped: inputs that could not be read, each with the reason.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: list[InputError] = field(default_factory=list)

    @property
    def written(self) -> int:
        """Items added, updated or deleted."""
        return self.added + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The state of an index.

    Attributes:
        path: the folder of the index.
        items: number of items.
        modalities: number of items of each modality.
        model_name: the model that made it; None while the index is empty.
        model_fingerprint: its fingerprint.
        store: the state of the store; None while the index is empty.
    """

    path: Path
    items: int
    modalities: Mapping[str, int]
    model_name: str | None
    model_fingerprint: str | None
    store: StoreStats | None


def uri_of(record: Record, location: Location) -> str | None:
    """Where the media of a record is, with ``#page=3`` where it is a page; None without media."""
    fields: Mapping[str, Any] = record.fields
    key, page = fields.get("path"), fields.get("page")
    if key is None:
        return None
    part = fields.get("part") or ("" if page is None else f"#page={page}")
    return f"{location.path_of(key)}{part}"


def hit_of(ranked: Ranked, location: Location) -> Hit:
    """A ranked record as the user sees it."""
    fields: Mapping[str, Any] = ranked.record.fields
    return Hit(
        id=ranked.record.id,
        score=ranked.score,
        scores=ranked.scores,
        uri=uri_of(ranked.record, location),
        modality=fields["modality"],
        page=fields.get("page"),
        text=ranked.record.text,
        metadata=user_metadata(ranked.record),
    )

"""Which of the items that a user passes have to be encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, TypeAlias

from mmembed.errors import InputError
from mmembed.inputs.items import Item, ItemLike, parse_item
from mmembed.search.filters import In
from mmembed.search.identity import Identity, identify
from mmembed.search.layout import FIELDS, Location, user_metadata
from mmembed.search.results import AddReport
from mmembed.search.store import Record, Value, VectorStore
from mmembed.search.writer import News, PendingItem, clean_metadata

__all__ = ["ItemMetadata", "check_lengths", "plan_items"]

ItemMetadata: TypeAlias = "Mapping[str, Any] | Iterable[Mapping[str, Any] | None]"

# Looked up in the store together. Few, because the items wait for it, and may be decoded images.
_LOOKED_UP_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class _Candidate:
    position: int
    id: str
    item: Item
    identity: Identity
    metadata: dict[str, Value] | None


def plan_items(
    store: VectorStore,
    location: Location,
    report: AddReport,
    values: Iterable[ItemLike],
    ids: Iterable[str] | None,
    metadata: ItemMetadata | None,
) -> Iterator[PendingItem | InputError]:
    """The items that are new or changed and the errors, lazily; others count as unchanged.

    Args:
        store: the store they would go to.
        location: how paths become keys.
        report: where unchanged items are counted.
        values: the user's items.
        ids: one an item; without them an item is known by its file or by its content.
        metadata: one for all items, or one an item; None keeps what an item has.
    """
    seen: dict[str, str] = {}  # id -> content hash, of this call
    candidates = _candidates(location, values, ids, metadata)
    while some := list(islice(candidates, _LOOKED_UP_AT_ONCE)):
        fields = [name for name in store.fields if name not in FIELDS or name == "content_hash"]
        wanted = In("id", tuple(each.id for each in some if isinstance(each, _Candidate)))
        known = {record.id: record for record in store.scan(wanted, fields=fields)}
        for candidate in some:
            if isinstance(candidate, InputError):
                yield candidate
                continue
            content_hash = candidate.identity.content_hash
            if candidate.id in seen and seen[candidate.id] == content_hash:
                report.unchanged += 1
            elif candidate.id in seen:
                yield InputError(
                    candidate.id,
                    "this id is twice in the call, with different items",
                    "give each item its own id",
                    candidate.position,
                )
            else:
                seen[candidate.id] = content_hash
                yield from _pending(candidate, known.get(candidate.id), report)


def _pending(
    candidate: _Candidate, known: Record | None, report: AddReport
) -> Iterator[PendingItem]:
    old = {} if known is None else user_metadata(known)
    metadata = old if candidate.metadata is None else candidate.metadata
    same = known is not None and (
        known.fields.get("content_hash") == candidate.identity.content_hash and metadata == old
    )
    if same:
        report.unchanged += 1
        return
    fields = {**candidate.identity.fields, **metadata}
    news: News = "added" if known is None else "updated"
    yield PendingItem(candidate.id, candidate.item, fields, news, candidate.position)


def _candidates(
    location: Location,
    values: Iterable[ItemLike],
    ids: Iterable[str] | None,
    metadata: ItemMetadata | None,
) -> Iterator[_Candidate | InputError]:
    own_ids = repeat(None) if ids is None else iter(ids)
    each_metadata = (
        repeat(metadata) if metadata is None or isinstance(metadata, Mapping) else iter(metadata)
    )
    for position, value in enumerate(values):
        try:
            item = parse_item(value)
            own_id = _next(own_ids, "ids")
            given = clean_metadata(_next(each_metadata, "metadata"))
            identity = identify(item, location)
        except InputError as error:
            yield error.at(position)
            continue
        if given is not None:
            given = {name: each for name, each in given.items() if each is not None}
        key = identity.id if own_id is None else own_id
        yield _Candidate(position, key, item, identity, given)


def _next(values: Iterator[Any], what: str) -> Any:
    try:
        return next(values)
    except StopIteration:
        raise InputError(what, "has ended before the items", "give one for each item") from None


def check_lengths(values: Any, **others: Any) -> None:
    """Refuse ids or metadata that are not as many as the items, where the lengths are known.

    Raises:
        InputError: names the one that is not.
    """
    for name, other in others.items():
        sized = isinstance(values, Sequence) and isinstance(other, Sequence)
        if sized and len(other) != len(values):
            raise InputError(name, f"has {len(other)} for {len(values)} items", "give one each")

"""Rows to examples whose items are of any modality; nothing is decoded here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mmembed.errors import InputError
from mmembed.gpte.data.examples import BadRowError, Report, read_rows, text_hash, with_columns
from mmembed.gpte.data.sources import WHOLE, Place, RawRow, Share, raw_rows
from mmembed.inputs.items import (
    DocumentPart,
    ImagePart,
    Item,
    Part,
    TextPart,
    VideoPart,
    parse_item,
)
from mmembed.multimodal.config import ItemColumns, MediaSourceConfig

__all__ = ["MediaExample", "item_hash", "media_examples", "modality_bits"]

_BITS = {TextPart: 1, ImagePart: 2, VideoPart: 4, DocumentPart: 8}


@dataclass(frozen=True, slots=True)
class MediaExample:
    """One query and what belongs to it.

    Attributes:
        teacher: scores of the positive and of each negative; empty where the source has none.
    """

    place: Place
    query: Item
    positive: Item
    negatives: tuple[Item, ...] = ()
    label: float | None = None
    teacher: tuple[float, ...] = ()

    @property
    def items(self) -> list[Item]:
        """Query, positive, negatives."""
        return [self.query, self.positive, *self.negatives]


def media_examples(
    source: MediaSourceConfig,
    report: Report,
    bad_rows: Literal["raise", "skip"] = "raise",
    share: Share = WHOLE,
) -> Iterator[MediaExample]:
    """The examples of a source, in its order.

    Args:
        report: filled along the way.
        bad_rows: ``skip`` leaves broken rows out, ``raise`` stops at the first.
        share: of the source, and of its limit, that is read.

    Raises:
        InputError: a broken row under ``raise``, named by file and line.
        ConfigError: the first row lacks a column that the source names.
    """
    named = [*_columns(source.query), *_columns(source.positive), *source.negatives]
    others = (source.label, source.teacher, source.instruction_column, *source.where)
    rows = with_columns(raw_rows(source.path, share), [*named, *others])
    where = source.where.items()
    wanted = (raw for raw in rows if all(raw.fields.get(name) == value for name, value in where))
    limit = None if source.limit is None else share.count(source.limit)
    return read_rows(wanted, partial(_example, source), limit, report, bad_rows)


def modality_bits(item: Item) -> int:
    """Which modalities an item holds: text 1, image 2, video 4, document 8; a fused item their sum.

    UNITE (Kong et al. 2025) compares documents by these.
    """
    bits = 0
    for part in item.parts:
        bits |= _BITS[type(part)]
    return bits


def item_hash(item: Item) -> int:
    """A signed 64-bit hash of what an item holds: texts, media by path or by content."""
    if len(item.parts) == 1 and isinstance(item.parts[0], TextPart):
        return text_hash(item.parts[0].text)
    digest = hashlib.blake2b(digest_size=8)
    for part in item.parts:
        digest.update(_identity(part))
    return int.from_bytes(digest.digest(), "little", signed=True)


def _identity(part: Part) -> bytes:
    if isinstance(part, TextPart):
        return b"text" + hashlib.blake2b(part.text.strip().encode()).digest()
    kind = type(part).__name__.encode()
    page = str(part.page).encode() if isinstance(part, DocumentPart) else b""
    source = part.source
    content = source if isinstance(source, bytes) else str(source).encode()
    return kind + page + hashlib.blake2b(content).digest()


def _columns(columns: ItemColumns) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns.values())


def _example(source: MediaSourceConfig, raw: RawRow) -> MediaExample:
    fields = raw.fields
    root = Path(source.root) if source.root else Path(raw.place.file).parent
    instruction = source.instruction
    if source.instruction_column:
        instruction = str(fields.get(source.instruction_column) or "")
    query = _item(fields, source.query, root, instruction, "query")
    positive = _item(fields, source.positive, root, source.target_instruction, "positive")
    negatives = tuple(
        _item({"negative": value}, "negative", root, source.target_instruction, name)
        for name in source.negatives
        for value in _listed(fields.get(name))
    )
    if source.negatives and not negatives:
        raise BadRowError("without negatives", f"no negative in {', '.join(source.negatives)}")
    label = None
    if source.label:
        label = _number(fields.get(source.label), source.label)
    teacher = (
        tuple(_number(value, source.teacher) for value in _listed(fields.get(source.teacher)))
        if source.teacher
        else ()
    )
    if teacher and len(teacher) != 1 + len(negatives):
        raise BadRowError(
            "teacher scores",
            f"{source.teacher} holds {len(teacher)} scores for {1 + len(negatives)} targets",
        )
    return MediaExample(raw.place, query, positive, negatives, label, teacher)


def _item(
    fields: Mapping[str, Any], columns: ItemColumns, root: Path, instruction: str, side: str
) -> Item:
    """An item of a row, with media paths made whole.

    Raises:
        BadRowError: the side is empty, or is no item.
    """
    value: Any
    if isinstance(columns, str):
        value = fields.get(columns)
        value = {"text": value} if isinstance(value, str) else value
    else:
        value = {key: fields.get(column) for key, column in columns.items()}
    if not isinstance(value, Mapping):
        raise BadRowError(f"{side} is no item", f"{side}: a {type(value).__name__} is no item")
    value = {key: _placed(key, part, root) for key, part in value.items() if _filled(part)}
    if not any(key != "instruction" for key in value):
        raise BadRowError(f"empty {side}", f"{side}: holds nothing")
    if instruction and "instruction" not in value:
        value["instruction"] = instruction
    try:
        return parse_item(value)
    except InputError as error:
        raise BadRowError(f"{side} is no item", f"{side}: {error.reason}") from None


def _filled(part: Any) -> bool:
    return part is not None and (not isinstance(part, str) or bool(part.strip())) and part != []


def _placed(key: str, part: Any, root: Path) -> Any:
    """Media by path below the root; bytes (Parquet's ``{"bytes": ...}`` too) as they are."""
    if key in ("text", "instruction"):
        return part
    if isinstance(part, (list, tuple)):
        return [_placed(key, one, root) for one in part]
    if isinstance(part, Mapping):
        part = part.get("bytes") or part.get("path")
    return root / part if isinstance(part, str) else part


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _number(value: Any, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadRowError("no number", f"{column}: {value!r} is no number") from None

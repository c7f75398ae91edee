"""From items to rows: encode a stream of items, and write the rows in batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.items import Item
from mmembed.search.identity import text_of
from mmembed.search.late import TokenStorage
from mmembed.search.layout import FIELDS
from mmembed.search.model import EmbeddingModel, Encoded, multi_vector_model
from mmembed.search.results import AddReport
from mmembed.search.store import (
    FieldType,
    Record,
    Value,
    VectorStore,
    check_fields,
    check_records,
    infer_field_type,
)

__all__ = ["News", "OnError", "PendingItem", "Progress", "RowWriter", "clean_metadata"]

OnError = Literal["skip", "raise"]
Progress = Callable[[AddReport], None]
News = Literal["added", "updated", "unchanged"]

# One write is one version of the table with files of its own, so few large writes beat many small
# ones; but a killed process loses what was not written yet.
_BATCH_ROWS = 1024
_BATCH_SECONDS = 5.0
# Characters kept: for full-text search and to be shown, not as a copy of the source.
_MAX_TEXT = 8192


@dataclass(frozen=True, slots=True)
class PendingItem:
    """An item on its way through the model.

    Attributes:
        id: its id in the index.
        item: what to encode.
        fields: its fields, the user's metadata among them.
        news: what writing it would be.
        position: its number in the user's call, where it has one.
    """

    id: str
    item: Item
    fields: Mapping[str, Value]
    news: News
    position: int | None = None


class RowWriter:
    """Checks rows one by one, so that a bad one is skipped alone, and writes them in batches.

    Args:
        store: where the rows go; the caller holds its write lock.
        report: where items and errors are counted.
        on_error: ``"raise"`` ends at the first error, after writing what came before it.
        progress: called with the report after every item.
        storage: how token vectors are kept; None keeps none.
    """

    def __init__(
        self,
        store: VectorStore,
        report: AddReport,
        on_error: OnError,
        progress: Progress | None,
        storage: TokenStorage | None = None,
    ) -> None:
        self._storage = storage
        self._store = store
        self._report = report
        self._on_error = on_error
        self._progress = progress
        self._fields: dict[str, FieldType] = dict(store.fields)
        self._rows: dict[str, Record] = {}
        self._last_flush = time.monotonic()

    def encode(self, model: EmbeddingModel, pending: Iterable[PendingItem | InputError]) -> None:
        """Encode items and write them, and report the errors found before encoding.

        ``pending`` is read lazily and ahead, maybe from another thread; errors keep their place
        among the items.
        """
        in_flight: deque[PendingItem | InputError] = deque()

        def items() -> Iterator[Item]:
            for each in pending:
                in_flight.append(each)
                if isinstance(each, PendingItem):
                    yield each.item

        try:
            for encoded in self._encoded(model, items()):
                while isinstance(each := in_flight.popleft(), InputError):
                    self.skip(each)
                self._take(each, encoded)
                self.step()
            for each in in_flight:
                assert isinstance(each, InputError)  # every item has had its result
                self.skip(each)
            self.step()
        finally:
            self.flush()

    def _encoded(self, model: EmbeddingModel, items: Iterator[Item]) -> Iterator[Encoded]:
        if self._storage is None:
            return model.encode_stream(items, role="document")
        late = multi_vector_model(model)
        return late.encode_stream(items, role="document", output=("dense", "multi"))

    def write(self, record: Record, news: News) -> None:
        """Take a finished row; one that the store would refuse is reported and skipped."""
        try:
            fields = self._with_new_fields(record)
            check_records([record], self._store.dim, fields, self._store.summary_dim)
        except InputError as error:
            self.skip(error)
            return
        self._fields = self._with_new_fields(record)
        self._rows[record.id] = record
        setattr(self._report, news, getattr(self._report, news) + 1)
        late = time.monotonic() - self._last_flush > _BATCH_SECONDS
        if late or len(self._rows) >= _BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting, in one commit."""
        rows, self._rows = list(self._rows.values()), {}
        if rows:
            self._store.add_fields(self._fields)
            self._store.upsert(rows)
        self._last_flush = time.monotonic()

    def _take(self, pending: PendingItem, encoded: Encoded) -> None:
        if encoded.vector is None:
            error = encoded.error or InputError(pending.item.label, "the model gave no vector")
            # Positions in the stream mean nothing to the user, those in the call do.
            self.skip(InputError(error.source, error.reason, error.hint, pending.position))
            return
        text = "\n".join(filter(None, (text_of(pending.item), encoded.text)))
        record = Record(pending.id, encoded.vector, text[:_MAX_TEXT], pending.fields)
        if self._storage is not None and encoded.multi is not None and len(encoded.multi):
            tokens, summary = self._storage.keep(encoded.multi)
            record = replace(record, tokens=tokens, summary=summary)
        self.write(record, pending.news)

    def skip(self, error: InputError) -> None:
        """Report a bad input.

        Raises:
            InputError: this one, with ``on_error="raise"``.
        """
        if self._on_error == "raise":
            raise error
        self._report.skipped.append(error)

    def step(self) -> None:
        """Tell of the progress."""
        if self._progress is not None:
            self._progress(self._report)

    def _with_new_fields(self, record: Record) -> dict[str, FieldType]:
        new = {
            name: infer_field_type(name, value)
            for name, value in record.fields.items()
            if name not in self._fields and value is not None
        }
        if not new:
            return self._fields
        check_fields(new, self._fields)
        return {**self._fields, **new}


def clean_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Value] | None:
    """A user's metadata as values that a store can keep.

    Raises:
        InputError: it is no mapping, or uses a name that the index needs itself.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise InputError("metadata", f"is a {type(metadata).__name__}", "give a dict for each item")
    taken = sorted(set(metadata) & set(FIELDS))
    if taken:
        raise InputError("metadata", f"{taken[0]!r} is a field of the index itself", "rename it")
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in metadata.items()
    }

"""What indexing and searching give back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from codeembed.walk import Skip, Skipped

__all__ = ["CodeHit", "IndexReport", "load_report", "save_report"]

_FILE_NAME = "report.json"


@dataclass(frozen=True, slots=True)
class CodeHit:
    """A chunk that was found.

    Attributes:
        path: Relative to the root of the index, with ``/``.
        start_line: First line, 1-based.
        end_line: Last line, inclusive.
        symbol: What the chunk defines first, else what it is inside of; may be empty.
        breadcrumb: ``pkg/file.py > class Foo > def bar``.
        language: Language or text format.
        kind: ``class``, ``function``, ``method``, ``section``, ``block``, ``text``, ...
        score: What the hits are ordered by; comparable within one search only.
        scores: ``dense`` and ``static`` (cosines) and ``lexical`` (BM25), where the chunk has them.
        text: The chunk.
        repository: Root of the index that it is in, where several are searched.
    """

    path: str
    start_line: int
    end_line: int
    symbol: str
    breadcrumb: str
    language: str
    kind: str
    score: float
    scores: Mapping[str, float]
    text: str
    repository: str = ""


@dataclass(slots=True)
class IndexReport:
    """What one update of an index did.

    Attributes:
        files: Files that are in the index now.
        chunks: Their chunks.
        bytes: Their bytes.
        added: Files that are new.
        changed: Files whose content changed.
        unchanged: Files that were left alone.
        removed: Files that are gone, or ignored now.
        embedded: Chunks that went through the model.
        reused: Chunks of new or changed files whose vector was there already.
        waiting: Chunks that have no vector yet; words find them until then.
        by_language: Files of each language or format that were cut in this update.
        by_method: Files cut along the tree, at headings, by lines.
        not_utf8: Files of this update with bytes that are not UTF-8, replaced in the texts.
        failed: Chunks that the model refused, as ``path:line: reason``.
        skipped: Everything that was left out, and why.
        seconds: Time taken.
    """

    files: int = 0
    chunks: int = 0
    bytes: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    embedded: int = 0
    reused: int = 0
    waiting: int = 0
    by_language: Counter[str] = field(default_factory=Counter)
    by_method: Counter[str] = field(default_factory=Counter)
    not_utf8: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        """How many files and folders were left out for each reason."""
        return dict(Counter(str(each.reason) for each in self.skipped))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        skipped = [asdict(each) for each in self.skipped]
        return {**values, "skipped": skipped, "skipped_by_reason": self.skipped_by_reason}


def save_report(folder: Path, report: IndexReport) -> None:
    """Keep the report beside the index; replaced as a whole."""
    partial = folder / f"{_FILE_NAME}.partial"
    partial.write_text(json.dumps(report.as_dict(), ensure_ascii=False, indent=1), "utf-8")
    partial.replace(folder / _FILE_NAME)


def load_report(folder: Path) -> IndexReport | None:
    """The report of the last finished update, or None."""
    try:
        values = json.loads((folder / _FILE_NAME).read_text("utf-8"))
        values.pop("skipped_by_reason", None)
        values["skipped"] = [
            Skipped(each["path"], Skip(each["reason"]), each["detail"])
            for each in values["skipped"]
        ]
        for name in ("by_language", "by_method"):
            values[name] = Counter(values[name])
        return IndexReport(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""MMEB-V2 (Meng et al., 2025) from files on disk: hit@1, and nDCG@5 for documents.

The layout is the one in which the benchmark is published and read by VLM2Vec:

- Image and video tasks: a table (parquet or JSONL) with a row a query: ``qry_text``,
  ``qry_img_path`` or ``qry_video_path``, and lists ``tgt_text`` and ``tgt_img_path`` or
  ``tgt_video_path`` of which the first is the right one. The instruction is ``qry_inst``. A query
  is compared with its own list of candidates only, and the figure is hit@1.
- Visual documents: folders or tables ``queries``, ``corpus`` and ``qrels`` (BEIR's form): all pages
  are candidates of every query, and the figure is nDCG@5 with linear gains.

Candidates that are equal count as one, and ties count against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.errors import InputError, MissingDependencyError
from mmembed.evaluation.benchmarks.measured import Measured, figure_of
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Array, Encoder, Retrieval, Sides, Task, cosines

__all__ = ["OwnCandidates", "read_mmeb"]

_PLACEHOLDERS = ("<|image_1|>", "<|image_pad|>", "<|video_pad|>")
_KINDS = ("image", "video")


@dataclass(frozen=True, slots=True, eq=False)
class OwnCandidates:
    """Each query has candidates of its own, of which one is right.

    Attributes:
        queries: items.
        candidates: the different candidates of all queries.
        choices: for each query the places of its candidates; the first is the right one.
    """

    queries: Sequence[Any]
    candidates: Sequence[Any]
    choices: Sequence[Sequence[int]]

    def encode(self, model: Encoder) -> Sides:
        """Vectors of queries and of the different candidates."""
        return (
            np.asarray(model.encode_query(self.queries)),
            np.asarray(model.encode_document(self.candidates)),
        )

    def score(self, sides: Sides) -> Measured:
        """hit@1 among each query's own candidates."""
        hits = np.array(
            [
                self._hit(cosines(sides[0][row : row + 1], sides[1][list(own)])[0], own)
                for row, own in enumerate(self.choices)
            ]
        )
        most = max(len(set(own)) for own in self.choices)
        return Measured("hit@1", {"hit@1": figure_of(hits)}, len(hits), most, hits.tolist())

    @staticmethod
    def _hit(scores: Array, own: Sequence[int]) -> float:
        others = [s for s, place in zip(scores, own, strict=True) if place != own[0]]
        return float(all(scores[0] > other for other in others))


def read_mmeb(folder: Path, media: Path | None = None) -> Mapping[str, Task]:
    """The tasks of a folder in MMEB-V2's layout, by the name of their table or folder.

    Args:
        folder: holds tables of image and video tasks, and folders of document tasks.
        media: what paths of media are relative to; the folder itself by default.

    Raises:
        InputError: nothing is there, a row is incomplete, or a file of media is missing.
    """
    tasks: dict[str, Task] = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if place.is_dir() and _table(place, "qrels") is not None:
            tasks[place.name] = _documents(place)
        elif place.is_dir() and _table(place, "test") is not None:
            table = _table(place, "test")
            assert table is not None
            tasks[place.name] = _choices(_read(table), media or folder, str(table))
        elif place.is_file() and place.suffix in (".parquet", ".jsonl"):
            tasks[place.stem] = _choices(_read(place), media or folder, str(place))
    if not tasks:
        raise InputError(str(folder), "holds no task of MMEB-V2", "name the folder of its tables")
    return tasks


def _choices(rows: Sequence[Mapping[str, Any]], media: Path, file: str) -> OwnCandidates:
    queries: list[Any] = []
    places: dict[str, int] = {}
    candidates: list[Any] = []
    choices: list[list[int]] = []
    for number, row in enumerate(rows):
        where = f"{file} row {number}"
        queries.append(_item(row, "qry", media, where))
        own = []
        for target in _targets(row, where):
            item = _item(target, "tgt", media, where)
            key = repr(item)
            if key not in places:
                places[key] = len(candidates)
                candidates.append(item)
            own.append(places[key])
        choices.append(own)
    if not queries:
        raise InputError(file, "holds no rows")
    return OwnCandidates(queries, candidates, choices)


def _targets(row: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Each candidate as a row of its own."""
    lists = {key: _listed(value) for key, value in row.items() if key.startswith("tgt_")}
    lists.pop("tgt_inst", None)
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1 or not max(lengths, default=0):
        raise InputError(where, f"has candidates of unequal numbers {sorted(lengths)}, or none")
    for values in zip(*lists.values(), strict=True):
        yield {**dict(zip(lists, values, strict=True)), "tgt_inst": row.get("tgt_inst", "")}


def _item(row: Mapping[str, Any], side: str, media: Path, where: str) -> Any:
    words = f"{row.get(f'{side}_inst') or ''} {row.get(f'{side}_text') or ''}"
    for mark in _PLACEHOLDERS:
        words = words.replace(mark, "")
    found: dict[str, Any] = {}
    for kind in _KINDS:
        short = "img" if kind == "image" else kind
        if path := row.get(f"{side}_{short}_path"):
            file = media / str(path)
            if not file.is_file():
                raise InputError(str(file), f"is not there ({where})", "name the folder of media")
            found[kind] = str(file)
    words = " ".join(words.split())
    if not found:
        if not words:
            raise InputError(where, f"has neither {side}_text nor media")
        return words
    return {**found, "text": words} if words else found


def _documents(folder: Path) -> Retrieval:
    tables = {name: _table(folder, name) for name in ("queries", "corpus", "qrels")}
    for name, table in tables.items():
        if table is None:
            raise InputError(str(folder), f"has no table {name!r}")
    queries, corpus, qrels = (_read(table) for table in tables.values() if table is not None)
    place = {str(row["corpus-id"]): i for i, row in enumerate(corpus)}
    gains: dict[str, dict[int, float]] = {}
    for row in qrels:
        if float(row["score"]) > 0 and str(row["corpus-id"]) in place:
            gains.setdefault(str(row["query-id"]), {})[place[str(row["corpus-id"])]] = float(
                row["score"]
            )
    asked = [row for row in queries if str(row["query-id"]) in gains]
    pages = [_page(row["image"], folder) for row in corpus]
    judged = [gains[str(row["query-id"])] for row in asked]
    return Retrieval([str(row["query"]) for row in asked], pages, judged, "ndcg@5")


def _page(image: Any, folder: Path) -> Any:
    """A page as a path below the task's folder, or as the bytes that parquet files carry."""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    file = folder / str(image)
    if not file.is_file():
        raise InputError(str(file), "is not there", "keep the pages below the task's folder")
    return file


def _table(folder: Path, name: str) -> Path | None:
    """``NAME.parquet``, ``NAME.jsonl``, or the first table of ``NAME/`` or ``NAME-*``."""
    for pattern in (f"{name}.parquet", f"{name}.jsonl", f"{name}-*.parquet", f"{name}/*.parquet"):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    return None


def _read(table: Path) -> list[dict[str, Any]]:
    if table.suffix == ".jsonl":
        return rows_of(table)
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:  # pragma: no cover
        raise MissingDependencyError("parquet", "eval") from error
    rows: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
    return rows


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]

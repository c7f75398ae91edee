"""Sources tokenised once into memory-mapped files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmembed.errors import InputError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of, text_hash
from mmembed.gpte.data.sources import Place, fingerprint_of
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.rows import Row
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tokenizing import Tokenizing

__all__ = ["TextRows", "TokenisedSource", "tokenised"]

_log = logging.getLogger(__name__)
_VERSION = 2
_CHUNK = 512

# What each file holds, flat: arrays of texts, of rows, and of tokens and spans within texts.
_ARRAYS: dict[str, Any] = {
    "tokens": np.int32,
    "token_ends": np.int64,  # per text
    "spans": np.int32,  # (name, start, stop)
    "span_ends": np.int64,  # per text
    "hashes": np.int64,  # per text
    "teacher": np.float32,  # per text; NaN at queries
    "text_ends": np.int64,  # per row
    "entities": np.int64,
    "entity_ends": np.int64,  # per row
    "labels": np.float32,  # per row; NaN without
    "places": np.int64,  # per row: file, number
}


@dataclass(frozen=True)
class TextRows:
    """Texts to rows with one tokenizer, in any process.

    Attributes:
        tokenizing: from a :class:`mmembed.gpte.text_encoder.TextEncoder`.
        settings: the same encoder's, for its prompts.
    """

    tokenizing: Tokenizing
    settings: TextSettings

    def __call__(self, source: SourceConfig, examples: list[Example]) -> list[list[Row]]:
        """The rows of every example's texts.

        Raises:
            InputError: a text cannot be a row; ``position`` is its example's.
        """
        queries = self._rows(
            source.query_role,
            [example.query for example in examples],
            [example.instruction for example in examples],
            list(range(len(examples))),
        )
        owners = [i for i, example in enumerate(examples) for _ in example.texts[1:]]
        documents = self._rows(
            source.document_role,
            [text for example in examples for text in example.texts[1:]],
            [source.document_instruction or None] * len(owners),
            owners,
        )
        found = [[row] for row in queries]
        for owner, row in zip(owners, documents, strict=True):
            found[owner].append(row)
        return found

    def _rows(
        self, role: str, texts: list[str], instructions: list[str | None], owners: list[int]
    ) -> list[Row]:
        try:
            return self.tokenizing.rows(self.settings.prompt(role), texts, instructions)
        except InputError as error:
            raise error.at(owners[error.position or 0]) from None

    def fingerprint(self, source: SourceConfig) -> str:
        """A hash of all that decides what a text's row is."""
        backend: Any = self.tokenizing.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        prompts = [self.settings.prompt(r) for r in (source.query_role, source.document_role)]
        parts = (
            backend.to_str(),
            [(p.template, p.instruction, p.pooled, p.denoise) for p in prompts],
            self.tokenizing.max_tokens,
            self.tokenizing.end_id,
            sorted(self.tokenizing.fillers.items()),
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


class TokenisedSource:
    """The memory-mapped rows of one source.

    Attributes:
        name: the source's.
        text_ends: ``(rows + 1,)`` int64: row ``i`` has the texts from ``text_ends[i]`` to
            ``text_ends[i + 1]``, its query first, then its positive, then its negatives.
        hashes: ``(texts,)`` int64 content hashes.
        labels: ``(rows,)`` float32, NaN without.
        teacher: ``(texts,)`` float32, NaN without.
        entities: numbers of entities, those of row ``i`` from ``entity_ends[i]`` on.
        entity_ends: ``(rows + 1,)`` int64.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.has_positive: bool = facts["has_positive"]
        self.has_negatives: bool = facts["has_negatives"]
        self.has_label: bool = facts["has_label"]
        self.has_teacher: bool = facts["has_teacher"]
        self._files: list[str] = facts["files"]
        self._span_names: list[str] = facts["span_names"]
        arrays = {name: _mapped(folder / f"{name}.bin", kind) for name, kind in _ARRAYS.items()}
        self._tokens, self._spans = arrays["tokens"], arrays["spans"].reshape(-1, 3)
        self._token_ends, self._span_ends = arrays["token_ends"], arrays["span_ends"]
        self.text_ends, self.hashes = arrays["text_ends"], arrays["hashes"]
        self.labels, self.teacher = arrays["labels"], arrays["teacher"]
        self.entities, self.entity_ends = arrays["entities"], arrays["entity_ends"]
        self._places = arrays["places"].reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes map the same files; pickled arrays would be copies.
        return TokenisedSource, (self.folder, self.name)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """``(rows,)`` tokens of all texts of each row."""
        ends: npt.NDArray[np.int64] = np.diff(self._token_ends[self.text_ends])
        return ends

    def row(self, text: int) -> Row:
        """One text as the encoder reads it."""
        ids = self._tokens[self._token_ends[text] : self._token_ends[text + 1]].tolist()
        spans: dict[str, list[tuple[int, int]]] = {name: [] for name in self._span_names}
        present = self._spans[self._span_ends[text] : self._span_ends[text + 1]]
        for name, start, stop in present.tolist():
            spans[self._span_names[name]].append((start, stop))
        if not spans.get("bare", [0]):  # a row without template denoising has no such span at all
            del spans["bare"]
        return Row(ids, len(ids), spans=spans)

    def place(self, row: int) -> Place:
        """Where the row stands in its source."""
        file, number = self._places[row].tolist()
        return Place(self._files[file], number)


def tokenised(
    source: SourceConfig,
    rows: TextRows,
    cache: Path,
    *,
    workers: int = 0,
    bad_rows: Literal["raise", "skip"] = "raise",
) -> TokenisedSource:
    """The source's rows from the cache, which is made first where it is missing.

    Args:
        cache: folder of all caches; one is found again by the content of the source, the tokenizer
            and the prompts.
        workers: processes that tokenise; 0 does it in this one.

    Raises:
        InputError: a broken row, no row at all, or a worker that died.
        OSError: the disk is full; an unfinished cache is removed.
    """
    columns = asdict(source)
    for unrelated in ("name", "weight", "objective", "licence"):
        del columns[unrelated]
    key = repr((_VERSION, bad_rows, sorted(columns.items())))
    key += fingerprint_of(source.path) + rows.fingerprint(source)
    digest = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    name = source.name or Path(source.path.removeprefix("stage://")).name.partition(".")[0]
    folder = cache / f"{name}-{digest}"
    if not folder.exists():
        report = Report(name)
        with whole_folder(folder) as partial:
            _write(partial, source, rows, report, workers, bad_rows)
        report.log()
    return TokenisedSource(folder, name)


def _mapped(file: Path, kind: Any) -> npt.NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(file, kind, "r") if file.stat().st_size else np.empty(0, kind)


def _write(
    folder: Path,
    source: SourceConfig,
    rows: TextRows,
    report: Report,
    workers: int,
    bad_rows: Literal["raise", "skip"],
) -> None:
    files: dict[str, int] = {}
    names: dict[str, int] = {}
    facts = {"has_positive": bool(source.positive), "has_negatives": bool(source.negatives)}
    facts |= {"has_label": bool(source.label), "has_teacher": bool(source.teacher)}
    tokens = texts = spans = entities = kept = 0
    with ExitStack() as stack:
        out = {n: stack.enter_context((folder / f"{n}.bin").open("wb")) for n in _ARRAYS}

        def put(name: str, values: Any) -> None:
            out[name].write(np.asarray(values, dtype=_ARRAYS[name]).tobytes())

        for ends in ("token_ends", "span_ends", "text_ends", "entity_ends"):
            put(ends, [0])
        stream = examples_of(source, report, bad_rows)
        for example, its_rows in _tokenise(source, rows, stream, report, workers, bad_rows):
            for row, text in zip(its_rows, example.texts, strict=True):
                tokens += row.tokens
                put("tokens", row.input_ids)
                put("token_ends", [tokens])
                found = [
                    (names.setdefault(name, len(names)), start, stop)
                    for name, ranges in row.spans.items()
                    for start, stop in ranges
                ]
                spans += len(found)
                put("spans", found)
                put("span_ends", [spans])
                put("hashes", [text_hash(text)])
            texts += len(its_rows)
            kept += 1
            put("text_ends", [texts])
            put("entities", example.entities)
            entities += len(example.entities)
            put("entity_ends", [entities])
            put("labels", [np.nan if example.label is None else example.label])
            silent = [np.nan] * (len(its_rows) - len(example.teacher))
            put("teacher", [*silent, *example.teacher])
            file = files.setdefault(example.place.file, len(files))
            put("places", [file, example.place.number])
    report.kept = kept
    if not kept:
        told = f" ({'; '.join(report.first)})" if report.first else ""
        raise InputError(source.path, f"has no usable row{told}", "is it the right file?")
    known = {"files": list(files), "span_names": list(names)}
    (folder / "facts.json").write_text(json.dumps({**facts, **known}), encoding="utf-8")


def _tokenise(
    source: SourceConfig,
    rows: TextRows,
    examples: Iterable[Example],
    report: Report,
    workers: int,
    bad_rows: Literal["raise", "skip"],
) -> Iterator[tuple[Example, list[Row]]]:
    """Examples with their rows, in order; the same whatever the number of workers."""
    stream = iter(examples)
    chunks = iter(lambda: list(islice(stream, _CHUNK)), [])
    for chunk, made in _map(rows, source, chunks, workers):
        for example, found in zip(chunk, made, strict=True):
            if isinstance(found, InputError):
                error = InputError(str(example.place), found.reason, found.hint)
                if bad_rows == "raise":
                    raise error
                report.add("without tokens", example.place, found.reason)
            else:
                yield example, found


_Made = list[list[Row] | InputError]


def _map(
    rows: TextRows, source: SourceConfig, chunks: Iterator[list[Example]], workers: int
) -> Iterator[tuple[list[Example], _Made]]:
    if workers == 0:
        for chunk in chunks:
            yield chunk, _rows_of(rows, source, chunk)
        return
    import multiprocessing

    # Spawned, as a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _keep, (rows,)) as pool:
        waiting: deque[tuple[list[Example], Future[_Made]]] = deque()
        try:
            while True:
                for chunk in islice(chunks, 2 * workers - len(waiting)):
                    waiting.append((chunk, pool.submit(_rows_in_worker, source, chunk)))
                if not waiting:
                    return
                chunk, future = waiting.popleft()
                yield chunk, future.result()
        except BrokenProcessPool as error:
            hint = "out of memory? use fewer data.workers"
            raise InputError(source.path, "a tokenising process died", hint) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_kept: list[TextRows] = []


def _keep(rows: TextRows) -> None:
    _kept[:] = [rows]


def _rows_in_worker(source: SourceConfig, chunk: list[Example]) -> _Made:
    return _rows_of(_kept[0], source, chunk)


def _rows_of(rows: TextRows, source: SourceConfig, chunk: list[Example]) -> _Made:
    """Every example's rows, or what is wrong with it."""
    try:
        return list(rows(source, chunk))
    except InputError as error:
        if error.position is None or len(chunk) == 1:
            return [error] * len(chunk)
        at = error.position
        after = _rows_of(rows, source, chunk[at + 1 :]) if at + 1 < len(chunk) else []
        before = _rows_of(rows, source, chunk[:at]) if at else []
        return [*before, error, *after]

"""Search over one code index or several: words, word vectors and the model's vectors, fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from codeembed.catalog import Catalog
from codeembed.database import ChunkRow, CodeStore
from codeembed.ignore import IgnoreRules
from codeembed.languages import normalise_name
from codeembed.ranking import Candidate, is_symbol, named_symbols, rank
from codeembed.results import CodeHit
from codeembed.tokenize import words

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CodeFilter", "Mode", "Question", "Source", "find"]

Mode = Literal["hybrid", "dense", "static", "lexical"]

# Each search hands over this many times k candidates, so that a chunk that all of them rank in the
# middle can still win.
_CANDIDATES = 5
_MIN_CANDIDATES = 50
# What a rank counts for; chosen by benchmarks/tune_code_ranking.py, as are those of the ranking.
# Where the model's vector is there, the word vector has nothing to add.
_READ = {"lexical": 0.35, "dense": 1.0}
# Of a chunk that has no dense vector yet: as much in all, so that it can stand among the others.
_UNREAD = {"lexical": 0.9, "static": 0.45}
_RELATED_WORDS = 40
_RARE = 1

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CodeFilter:
    """Which chunks may be found.

    Attributes:
        glob: Patterns as in ``.gitignore``: the last one that matches a path or a folder above it
            decides, ``!`` takes out, a pattern without ``/`` matches names at any depth.
        language: Names or aliases; any of them.
        kind: Any of them; a chunk that defines several things has several kinds.

    Raises:
        ConfigError: a language is unknown.
    """

    glob: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()

    def mask(self, catalog: Catalog, store: CodeStore) -> npt.NDArray[np.bool_]:
        """``(rows,)``: which live rows pass."""
        if not (self.glob or self._languages or self._kinds):
            return catalog.alive.copy()
        verdicts: dict[str, bool] = {}
        passing: list[int] = []
        for id_, path, language, kinds in store.places():
            if self._languages and language not in self._languages:
                continue
            if self._kinds and self._kinds.isdisjoint(kinds.split("\x1f")):
                continue
            if self.glob:
                if path not in verdicts:
                    verdicts[path] = self._takes(path)
                if not verdicts[path]:
                    continue
            passing.append(id_)
        mask = np.zeros(len(catalog), bool)
        mask[catalog.rows_of(passing)] = True
        return mask & catalog.alive

    @cached_property
    def _languages(self) -> frozenset[str]:
        return frozenset(normalise_name(name) for name in self.language)

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.kind)

    @cached_property
    def _rules(self) -> IgnoreRules:
        return IgnoreRules(self.glob)

    def _takes(self, path: str) -> bool:
        verdict = self._rules.verdict_below(path)
        if verdict is None:
            # Patterns that only take out leave everything else in.
            return all(pattern.startswith("!") for pattern in self.glob)
        return verdict


@dataclass(frozen=True)
class Source:
    """An index to search: its chunks on disk and in memory.

    Attributes:
        store: Of the chunks.
        catalog: In step with the store.
        name: What hits call it; empty where there is only one.
    """

    store: CodeStore
    catalog: Catalog
    name: str = ""


@dataclass(frozen=True)
class Question:
    """What is looked for.

    Attributes:
        text: Words or a symbol; for related code the code itself.
        vector: ``(dim,)``, unit length, of the model; None to do without.
        mode: Which searches take part.
        apart_from: Key of the chunk that the question is, if it is one: source and row.
    """

    text: str
    vector: Floats | None
    mode: Mode
    apart_from: tuple[int, int] | None = None


def find(
    question: Question, k: int, chosen: CodeFilter, sources: Sequence[Source]
) -> list[CodeHit]:
    """The best ``k`` chunks that pass the filter.

    ``dense``, ``static`` and ``lexical`` order by cosine or by BM25 alone. ``hybrid`` fuses all
    that there are: where a chunk has no dense vector yet, its word vector counts in its place.
    """
    if k < 1:
        return []
    wanted = k if question.mode != "hybrid" else max(_CANDIDATES * k, _MIN_CANDIDATES)
    found: dict[tuple[int, int], Candidate] = {}
    for number, source in enumerate(sources):
        _gather(question, wanted, chosen, number, source, found)
    found.pop(question.apart_from or (-1, -1), None)
    chunks = _chunks(found, sources)
    candidates = [each for key, each in found.items() if key in chunks]
    for each in candidates:
        number, _ = each.key
        each.path = f"{sources[number].name}/{chunks[each.key].path}".lstrip("/")

    def place(each: Candidate) -> tuple[str, int]:
        return each.path, chunks[each.key].number

    if question.mode == "hybrid":
        ordered = rank(question.text, candidates, _weights_of, place)
    else:
        for each in candidates:
            each.score = each.scores[question.mode]
        ordered = sorted(candidates, key=lambda each: (-round(each.score, 5), *place(each)))
    return [_hit(chunks[each.key], each, sources[each.key[0]].name) for each in ordered[:k]]


def _weights_of(candidate: Candidate) -> Mapping[str, float]:
    return _READ if "dense" in candidate.scores else _UNREAD


def _gather(
    question: Question,
    wanted: int,
    chosen: CodeFilter,
    number: int,
    source: Source,
    found: dict[tuple[int, int], Candidate],
) -> None:
    """Add the candidates of one index: the best of each search, and every definition."""
    catalog = source.catalog
    mask = chosen.mask(catalog, source.store)
    if not mask.any():
        return
    lists: dict[str, npt.NDArray[np.floating]] = {}
    if question.mode in ("hybrid", "lexical"):
        asked = words(question.text)[: _RELATED_WORDS * 4]
        lists["lexical"] = np.where(mask, catalog.lexical(asked), 0.0)
    if question.mode in ("hybrid", "static"):
        cosines = catalog.static(question.text)
        if cosines is not None:
            lists["static"] = np.where(mask, cosines, -np.inf)
    if question.mode in ("hybrid", "dense") and question.vector is not None:
        dense = catalog.dense(question.vector)
        lists["dense"] = np.where(mask & ~np.isnan(dense), dense, -np.inf)
    chosen_rows: set[int] = set()
    for name, scores in lists.items():
        chosen_rows.update(_best(scores, wanted, positive=name == "lexical"))
    defining: set[int] = set()
    if question.mode == "hybrid" and question.apart_from is None:
        ids = source.store.defining(named_symbols(question.text))
        defining = {int(row) for row in catalog.rows_of(sorted(ids)) if mask[row]}
        scores = lists["lexical"]
        chosen_rows.update(sorted(defining, key=lambda row: -scores[row])[:wanted])
    for row in chosen_rows:
        scores_of = {
            name: float(scores[row])
            for name, scores in lists.items()
            if np.isfinite(scores[row]) and (name != "lexical" or scores[row] > 0)
        }
        key = (number, row)
        # What several places define is a common word, and a longer query asks for none of them.
        telling = len(defining) <= _RARE or is_symbol(question.text)
        found[key] = Candidate(key, "", scores_of, defines=telling and row in defining)


def _best(scores: npt.NDArray[np.floating], k: int, *, positive: bool) -> list[int]:
    """Rows of the ``k`` highest scores, and those equal to the last of them."""
    rows = np.flatnonzero(scores > 0 if positive else np.isfinite(scores))
    if len(rows) > k:
        least = np.partition(scores[rows], -k)[-k]
        rows = rows[scores[rows] >= least - 1e-6]
    return [int(row) for row in rows[: 4 * k]]


def _chunks(
    found: Mapping[tuple[int, int], Candidate], sources: Sequence[Source]
) -> dict[tuple[int, int], ChunkRow]:
    chunks: dict[tuple[int, int], ChunkRow] = {}
    for number, source in enumerate(sources):
        ids = {int(source.catalog.ids[row]): row for at, row in found if at == number}
        for chunk in source.store.chunks(list(ids)):
            # An update may have taken one away meanwhile.
            chunks[number, ids[chunk.id]] = chunk
    return chunks


def _hit(chunk: ChunkRow, candidate: Candidate, repository: str) -> CodeHit:
    return CodeHit(
        path=chunk.path,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        symbol=chunk.symbol,
        breadcrumb=chunk.breadcrumb,
        language=chunk.language,
        kind=chunk.kind,
        score=candidate.score,
        scores=candidate.scores,
        text=chunk.text,
        repository=repository,
    )

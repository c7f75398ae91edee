"""Hybrid search over a code index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from codeembed.catalog import Catalog, Row
from codeembed.ignore import IgnoreRules
from codeembed.languages import normalise_name
from codeembed.results import CodeHit
from codeembed.tokenize import identifiers
from codeembed.tokens import CodeModel
from mmembed.search.filters import And, Contains, Filter, In, Or
from mmembed.search.fusion import reciprocal_rank_fusion
from mmembed.search.store import Record, VectorStore

__all__ = ["CodeFilter", "Mode", "find", "named_symbols"]

Mode = Literal["hybrid", "dense", "lexical"]

# Each search hands over this many times k candidates, so that a chunk that both of them rank in the
# middle can still win.
_CANDIDATES = 5
_MIN_CANDIDATES = 50


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

    def rows(self, rows: list[Row | None]) -> npt.NDArray[np.bool_]:
        """``(len(rows),)``: which rows pass."""
        paths = self._paths(rows)
        mask = np.zeros(len(rows), dtype=bool)
        for number, row in enumerate(rows):
            mask[number] = (
                row is not None
                and (paths is None or row.path in paths)
                and (not self._languages or row.language in self._languages)
                and (not self._kinds or not self._kinds.isdisjoint(row.kinds))
            )
        return mask

    def where(self, rows: list[Row | None]) -> Filter | None:
        """The same as a filter of the store; ``rows`` are all of them."""
        parts: list[Filter] = []
        if (paths := self._paths(rows)) is not None:
            parts.append(In("path", tuple(sorted(paths))))
        if self._languages:
            parts.append(In("language", tuple(sorted(self._languages))))
        if self._kinds:
            parts.append(Or(tuple(Contains("kinds", kind) for kind in sorted(self._kinds))))
        return And(tuple(parts)) if parts else None

    @cached_property
    def _languages(self) -> frozenset[str]:
        return frozenset(normalise_name(name) for name in self.language)

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.kind)

    def _paths(self, rows: list[Row | None]) -> frozenset[str] | None:
        if not self.glob:
            return None
        rules = IgnoreRules(self.glob)
        # Patterns that only take out leave everything else in.
        otherwise = all(pattern.startswith("!") for pattern in self.glob)
        paths = {row.path for row in rows if row is not None}
        verdicts = {path: rules.verdict_below(path) for path in paths}
        return frozenset(
            path for path in paths if (otherwise if verdicts[path] is None else verdicts[path])
        )


def find(
    query: str,
    k: int,
    mode: Mode,
    chosen: CodeFilter,
    catalog: Catalog,
    store: VectorStore,
    model: CodeModel | None,
) -> list[CodeHit]:
    """The best ``k`` chunks that pass the filter.

    ``dense`` orders by cosine, ``lexical`` by BM25. ``hybrid`` joins both lists by reciprocal rank
    fusion, and a query that spells out symbols (``parse_args``, ``HttpClient``, ``Foo.bar``) adds a
    third list: the chunks that define one of them. It counts twice, so that a definition comes
    before a use that both searches put first.
    """
    mask = chosen.rows(catalog.rows)
    if k < 1 or not mask.any():
        return []
    candidates = k if mode != "hybrid" else max(_CANDIDATES * k, _MIN_CANDIDATES)
    dense: dict[str, float] = {}
    lexical: dict[str, float] = {}
    rankings: list[list[str]] = []
    if model is not None and mode != "lexical":
        dense = dict(_dense(query, candidates, chosen, catalog, store, model))
        rankings.append(list(dense))
    if mode != "dense":
        bm25 = np.where(mask, catalog.scores(query), 0.0)
        lexical = dict(_best(bm25, candidates, catalog))
        rankings.append(list(lexical))
        if mode == "hybrid" and (definitions := _definitions(query, mask, bm25, catalog)):
            rankings += [definitions[:candidates]] * 2
    if mode == "hybrid":
        ranked = reciprocal_rank_fusion(rankings)[:k]
    else:
        ranked = list((dense or lexical).items())[:k]
    records = store.get([id_ for id_, _ in ranked])
    return [
        _hit(records[id_], score, dense.get(id_), lexical.get(id_))
        for id_, score in ranked
        if id_ in records  # an update may have taken it away meanwhile
    ]


def _dense(
    query: str,
    k: int,
    chosen: CodeFilter,
    catalog: Catalog,
    store: VectorStore,
    model: CodeModel,
) -> Iterator[tuple[str, float]]:
    encoded = next(iter(model.encode_stream([query], role="query")))
    if encoded.vector is None:
        assert encoded.error is not None
        raise encoded.error
    for hit in store.search(encoded.vector, k, chosen.where(catalog.rows)):
        yield hit.record.id, hit.score


def _best(scores: npt.NDArray[np.float64], k: int, catalog: Catalog) -> Iterator[tuple[str, float]]:
    """Ids of the ``k`` highest scores above 0; equal ones in the order of their ids."""
    found = np.flatnonzero(scores)
    if len(found) > k:
        least = np.partition(scores[found], -k)[-k]
        found = found[scores[found] >= least]
    pairs = [(row.id, float(scores[n])) for n in found if (row := catalog.rows[n]) is not None]
    yield from sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]


_CODE_LIKE = re.compile(r"_|\d|[a-z][A-Z]|[A-Z]{2}[a-z]")


def named_symbols(query: str) -> set[str]:
    """The symbols that a query spells out, in lower case.

    One word alone is a symbol; in a longer query only what looks like code is, so that "search the
    index" does not ask for whatever is called ``search``.
    """
    names = identifiers(query)
    if len(names) > 1 and not re.fullmatch(r"[\w.:#()]+", query.strip()):
        names = [name for name in names if _CODE_LIKE.search(name)]
    return {name.lower() for name in names}


def _definitions(
    query: str,
    mask: npt.NDArray[np.bool_],
    bm25: npt.NDArray[np.float64],
    catalog: Catalog,
) -> list[str]:
    """Chunks that define a symbol of the query, best BM25 first."""
    wanted = named_symbols(query)
    found = []
    for number in np.flatnonzero(mask) if wanted else ():
        row = catalog.rows[number]
        assert row is not None
        for symbol in row.symbols:
            if wanted.intersection(identifiers(symbol.lower())):
                found.append((-bm25[number], row.id))
                break
    return [id_ for _, id_ in sorted(found)]


def _hit(record: Record, score: float, dense: float | None, lexical: float | None) -> CodeHit:
    fields = record.fields
    scores = {"dense": dense, "lexical": lexical}
    return CodeHit(
        path=str(fields["path"]),
        start_line=int(str(fields["start_line"])),
        end_line=int(str(fields["end_line"])),
        symbol=str(fields["symbol"]),
        breadcrumb=str(fields["breadcrumb"]),
        language=str(fields["language"]),
        kind=str(fields["kind"]),
        score=score,
        scores={name: value for name, value in scores.items() if value is not None},
        text=record.text,
    )

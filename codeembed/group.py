"""Several indexes, searched as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codeembed.index import CodeIndex
from codeembed.results import CodeHit
from codeembed.search import CodeFilter, Mode, Source, find
from mmembed.errors import ConfigError, IndexMismatchError

__all__ = ["search_together"]


def search_together(
    query: str,
    indexes: Sequence[CodeIndex],
    k: int = 10,
    *,
    mode: Mode = "hybrid",
    glob: Sequence[str] = (),
    language: Sequence[str] = (),
    kind: Sequence[str] = (),
) -> list[CodeHit]:
    """The best ``k`` chunks of several indexes; every hit names its ``repository``.

    Cosines of all of them are compared with each other, and BM25 as well, before ranks are taken.

    Args: as for :meth:`codeembed.index.CodeIndex.search`.

    Raises:
        ConfigError: there is no index.
        IndexMismatchError: two were made by different models.
        InputError: one of the folders has no index, or the query is empty.
    """
    if not indexes:
        raise ConfigError("name at least one folder to search")
    sources = [
        Source(found.store, found.catalog, index.root.as_posix())
        for index in indexes
        for found in (index.source(),)
    ]
    prints = {meta.get("model_fingerprint") for each in sources if (meta := each.store.meta)}
    if len(prints - {None}) > 1:
        names = ", ".join(str(Path(index.root)) for index in indexes)
        raise IndexMismatchError(
            f"{names}: were made by different models; index them with the same one"
        )
    asked = [index.question(query, mode) for index in indexes]
    question = next((each for each in asked if each.vector is not None), asked[0])
    chosen = CodeFilter(tuple(glob), tuple(language), tuple(kind))
    return find(question, k, chosen, sources)

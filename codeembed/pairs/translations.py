"""The same function in two languages, in one repository."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from codeembed.pairs.functions import Function, functions_of
from codeembed.pairs.matchers import match_names
from codeembed.pairs.mining import Mined, sources_of
from codeembed.pairs.pair import Pair
from codeembed.pairs.quality import code_problem
from codeembed.parse import ParseTimeoutError
from codeembed.transform.tree import Code
from mmembed.errors import InputError

__all__ = ["mine_translations"]


def mine_translations(
    folder: Path,
    *,
    repository: str | Callable[[str], str] = "",
    most: int = 8,
    mined: Mined | None = None,
) -> Iterator[Pair]:
    """Pairs of functions of one repository whose names have the same words in other languages.

    Ports and bindings name their functions alike (``read_file``, ``readFile``). Names that more
    than ``most`` functions share, and single common words, say nothing and are left out.

    Args:
        folder: As :func:`codeembed.pairs.mining.mine_folder`.
        repository: As there.
        most: Functions that may share a name.
        mined: Where to count.

    Raises:
        InputError: the folder cannot be read.
    """
    counts = mined if mined is not None else Mined()
    found: dict[str, list[tuple[str, str, Function]]] = defaultdict(list)
    for data, language, owner, path in sources_of(folder, repository, counts):
        try:
            functions = functions_of(Code.read(data, language))
        except (InputError, ParseTimeoutError):
            counts.unreadable += 1
            continue
        for function in functions:
            problem = code_problem(function.code)
            if problem:
                counts.dropped[f"translation: {problem}"] += 1
            else:
                found[owner].append((language, path, function))
    for owner, group in found.items():
        for first, second in match_names([each.name for _, _, each in group], most=most):
            (language, _, query), (other, path, positive) = group[first], group[second]
            if language == other:
                continue
            counts.kept["translation"] += 1
            place = f"{path}:{positive.line}"
            yield Pair(query.code, positive.code, "translation", other, owner, place)

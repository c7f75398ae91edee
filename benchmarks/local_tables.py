"""The tables of ``docs/results.md``, written from the results that commands left.

python benchmarks/local_tables.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from marked import between
from mteb_agreement import text_sets

from mmembed.evaluation.benchmarks import BENCHMARKS
from mmembed.evaluation.probes import PROBES

__all__ = ["PAGE", "TABLES", "rendered"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
_RESULTS = Path(__file__).resolve().parent / "results"

Result = Mapping[str, Any]


def rendered(page: str, name: str, result: Result) -> str:
    """The page with the table of this result between its marks.

    Args:
        page: text of ``docs/results.md``.
        name: of the result; see :data:`TABLES`.
        result: what the result's file holds.
    """
    start, end = (f"<!-- {name.replace('_', ' ')}: {side} -->\n" for side in ("start", "end"))
    lines = "".join(f"{line}\n" for line in TABLES[name](result))
    return between(page, (start, end), lines, PAGE)


def _local(result: Result) -> Iterator[str]:
    yield (
        "| benchmark | metric | mean over subsets | half the dimensions | one bit a dimension "
        "| sample |"
    )
    yield "|---|---|---|---|---|---|"
    for name, one in sorted(result["benchmarks"].items()):
        cuts = {int(width): value for width, value in one["curves"]["dimensions"].items()}
        half, bit = cuts[max(cuts) // 2], one["curves"]["quantisation"]["binary"]
        sample = one["split"].partition("; a sample: ")[2]
        cells = f"{one['score']:.4f} | {half:.4f} | {bit:.4f} | {sample}"
        yield f"| `{name}` | {one['main']} | {cells.rstrip()} |"
    yield from _missing(BENCHMARKS, result["benchmarks"])


def _agreement(result: Result) -> Iterator[str]:
    yield (
        "| set | subsets | queries | metric | ours, mean | mteb, mean "
        "| largest difference of any metric | with ties as trec_eval |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, subsets in sorted(result["sets"].items()):
        found = list(subsets.values())
        ours, mteb = (sum(one[side] for one in found) / len(found) for side in ("ours", "mteb"))
        ties = [one.get("with_ties_as_trec_eval", one["largest_difference"]) for one in found]
        most = max(one["largest_difference"] for one in found)
        yield (
            f"| `{name}` | {len(found)} | {sum(one['queries'] for one in found):,} "
            f"| {found[0]['metric']} | {ours:.4f} | {mteb:.4f} "
            f"| {most:.1e} | {max(ties):.1e} |"
        )
    yield from _missing(text_sets(), result["sets"])


def _probes(result: Result) -> Iterator[str]:
    yield "| probe | what it found in mini |"
    yield "|---|---|"
    for name, one in sorted(result["probes"].items()):
        told = "; ".join(f"{key}: {value:.5g}" for key, value in one["figures"].items())
        yield f"| `{name}` | {told} |"
    yield from _missing(PROBES, result["probes"])


def _missing(names: Iterable[str], found: Mapping[str, Any]) -> Iterator[str]:
    """What there is and nobody has measured."""
    if missing := [f"`{name}`" for name in names if name not in found]:
        yield ""
        yield f"Not measured: {', '.join(missing)}."


TABLES: Mapping[str, Callable[[Result], Iterator[str]]] = {
    "local_benchmarks": _local,
    "mteb_agreement": _agreement,
    "probes": _probes,
}
"""What writes the table of a result, by the name of its file."""


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        result = json.loads((_RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        page = rendered(page, name, result)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The tables of ``docs/mini.md`` and of mini's card, written from their result files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marked import between

__all__ = ["write_cuts", "write_tables"]

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "mini.md"
_CARD = _ROOT / "mmembed" / "models" / "mini" / "README.md"
_MARKS = ("<!-- tables: start -->\n", "<!-- tables: end -->")
_CUTS = ("<!-- cuts: start -->\n", "<!-- cuts: end -->")


def write_tables(result: Mapping[str, Any]) -> None:
    """Replace what stands between the two marks of each page."""
    _fill(_PAGE, _MARKS, _lines(result))
    _fill(_CARD, _MARKS, _short(result))


def write_cuts(result: Mapping[str, Any]) -> None:
    """Likewise of ``results/mini_matryoshka.json``, on the page alone."""
    _fill(_PAGE, _CUTS, _by_dimension(result["tasks"]))


def _fill(page: Path, marks: tuple[str, str], lines: Iterator[str]) -> None:
    text = page.read_text(encoding="utf-8")
    tables = "".join(f"{line}\n" for line in lines)
    page.write_text(between(text, marks, tables, page), encoding="utf-8")


def _by_dimension(tasks: Mapping[str, Any]) -> Iterator[str]:
    """Each dimension's plain value, and that of the task; the better one in bold."""
    plain, turned = next(iter(tasks.values()))["found"]
    dims = list(next(iter(tasks.values()))["found"][plain])
    yield f"| nDCG@10, {plain} → {turned} | {' | '.join(dims)} |"
    yield "|---" * (len(dims) + 1) + "|"
    for name, task in tasks.items():
        cells = []
        for dim in dims:
            before, after = (round(task["found"][one][dim]["value"], 3) for one in (plain, turned))
            left = f"**{before:.3f}**" if before > after else f"{before:.3f}"
            cells.append(f"{left} → " + (f"**{after:.3f}**" if after > before else f"{after:.3f}"))
        yield f"| {name} | {' | '.join(cells)} |"


def _short(result: Mapping[str, Any]) -> Iterator[str]:
    yield "| task | candidates | R@1 | R@10 | perceptron, R@1 | R@10 | untrained, R@1 |"
    yield "|---|---|---|---|---|---|---|"
    for task in result["tasks"].values():
        cells = [
            _value(task["found"], system, name)
            for system, names in (
                ("mini", ("R@1", "R@10")),
                ("perceptron", ("R@1", "R@10")),
                ("untrained start", ("R@1",)),
            )
            for name in names
        ]
        yield f"| {task['name']} | {task['candidates']:,} | {' | '.join(cells)} |"
    yield ""
    yield f"Where the perceptron's nDCG@10 is the higher one: {_behind(result)}."


def _value(found: Mapping[str, Any], system: str, name: str) -> str:
    return f"{found[system][name]['value']:.3f}" if system in found else "not measured"


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    tasks = result["tasks"].values()
    yield "| task | queries, candidates | system | R@1 | R@5 | R@10 | nDCG@10 |"
    yield "|---|---|---|---|---|---|---|"
    for task in tasks:
        first = f"{task['name']} | {task['queries']:,}, {task['candidates']:,}"
        for name, found in sorted(task["found"].items(), key=lambda one: one[0] != "mini"):
            shown = f"**{name}**" if name == "mini" else name
            yield f"| {first} | {shown} | {_cells(found, ('R@1', 'R@5', 'R@10', 'nDCG@10'))} |"
            first = " |"
    yield ""
    yield f"Where the perceptron's nDCG@10 is the higher one: {_behind(result)}."
    yield ""
    yield "Where the data come from, and what to know:"
    yield ""
    for task in tasks:
        note = f"; {task['note']}" if task["note"] else ""
        yield f"- {task['name']}: {task['source']}{note}."
    yield ""
    yield "nDCG@10 of mini by dimension (Matryoshka cuts):"
    yield ""
    dims = list(next(iter(tasks))["ndcg@10_by_dimension"])
    yield f"| task | {' | '.join(dims)} |"
    yield "|---" * (len(dims) + 1) + "|"
    for task in tasks:
        cut = task["ndcg@10_by_dimension"]
        yield f"| {task['name']} | {' | '.join(f'{cut[dim]:.3f}' for dim in dims)} |"
    if result["mixed"]:
        yield from _mixed(result["mixed"])


def _behind(result: Mapping[str, Any]) -> str:
    """The tasks at which the simple baseline is better, and both values."""
    behind = []
    for task in result["tasks"].values():
        ours, theirs = (task["found"][name]["nDCG@10"]["value"] for name in ("mini", "perceptron"))
        if ours < theirs:
            behind.append(f"{task['name']} ({theirs:.3f}, mini {ours:.3f})")
    return "; ".join(behind) or "nowhere"


def _mixed(mixed: Mapping[str, Any]) -> Iterator[str]:
    sizes = ", ".join(f"{count:,} {kind}" for kind, count in mixed["candidates"].items())
    yield ""
    yield f"All modalities in one index ({sizes}):"
    yield ""
    yield "| asked for | queries | system | way of asking | that modality first | R@1 | R@10 |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in mixed["found"].items():
        for modality, one in found.items():
            for way in ("as it is", "asked in words", "filtered"):
                cells = _cells(one[way], ("modality first", "R@1", "R@10"))
                yield f"| {modality} | {one['queries']} | {name} | {way} | {cells} |"


def _cells(found: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return " | ".join(
        f"{found[name]['value']:.3f} ({found[name]['interval'][0]:.3f}–"
        f"{found[name]['interval'][1]:.3f})"
        for name in names
    )

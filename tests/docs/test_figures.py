"""Numbers of the documentation come from result files that commands wrote."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import local_tables
import mini_tables
import mteb_agreement

NAMED = re.compile(r"benchmarks/(?:results/)?(\w+?)(?:_SIZE)?\.(?:py|json)")
RENDERED = re.compile(r"<!-- [\w ]+: (?:begin|start) -->.*?<!-- [\w ]+: end -->", re.DOTALL)
UNIT = re.compile(r"(?<![\d.,])\d[\d,]*(?= (?:ms|MB|s)\b)")
SHARE = re.compile(r"\d+(?:\.\d+)?(?=%)")
MEASURED = re.compile(
    r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?=\s?(?:ms|[kKMGT]i?B|s|seconds?|minutes?|hours?|times|points?|%)"
    r"(?!\w))|(?<![\w.-])\d+\.\d+(?![\w.])"
)
CARD = Path(__file__).parents[2] / "mmembed" / "models" / "mini" / "README.md"
UNRECORDED = "not recorded"
# Numbers that nobody measured, by page: limits that the code sets, definitions, and what the page
# itself computes from recorded numbers. A measured one is not listed: name its result beside it.
GIVEN = {
    "README.md": {
        "6": "as clone_times.py measures",
        "13": "as clone_times.py measures",
    },
    "SECURITY.md": {"20": "a limit", "10": "a limit", "64": "a limit"},
    "docs/serving.md": {"20": "a limit", "10": "a limit", "30": "a limit", "64": "a limit"},
    "docs/benchmarks.md": {"23.5": "the machine, in every result"},
    "docs/media-search.md": {"0.8": "a version"},
    "docs/probes.md": {
        "0.5": "a scale's end",
        "1.0": "a scale's end",
        "0.8": "Cohen's large effect",
    },
    "docs/recipes.md": {"80": "a setting", "20": "a setting"},
    "docs/scale.md": {
        "155.3": "of bulk.json, as said above it",
        "0.0064": "1 / 155.3",
        "52": "0.0064 s x 10^9 / 64 / 32",
        "4.3": "10^9 / 1,000 / 64",
        "0.77": "768 bytes x 10^9",
        "6": "46 x 128 bytes",
    },
    "docs/vlm.md": {"64": "a limit", "800": "a limit of a test"},
}
ROUNDED = 2e-5  # mteb gives five places of retrieval figures, and ranks cosines in float32


def numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield float(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one)


def told(text: str) -> list[str]:
    """The figures that a cell of the table states: those with a point, an exponent, %, or times."""
    text = re.sub(r"sentence-transformers [\d.]+", "", text)
    return re.findall(r"\d+(?:\.\d+)?e-?\d+|\d+\.\d+|\d+(?=%| times| files)", text)


def rounds_to(figure: str, values: Iterable[float]) -> bool:
    """Whether one of the values is a figure when rounded to its places."""
    wanted = float(figure)
    places = len(figure.partition("e")[0].partition(".")[2])
    exponent = int(figure.partition("e")[2]) if "e" in figure else 0
    half = 0.5 * 10.0 ** (exponent - places) * 1.001
    return any(abs(value - wanted) <= half for value in values)


def found_in(figure: str, values: list[float], text: str) -> bool:
    """Whether a value rounds to a figure as it is, as a percentage, or as a ratio turned round."""
    return rounds_to(figure, [*values, *(100 * v for v in values), *(1 / v for v in values if v)])


def test_numbers_of_the_readme_come_from_files_that_commands_wrote(project_root: Path) -> None:
    text = (project_root / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Results") : text.index("## Limits")]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 8
    missing = []
    for row in rows:
        _, what, result, peer, command, _ = (cell.strip() for cell in row.split("|"))
        script = re.search(r"benchmarks/(\w+)\.py", command)
        name = "reference_scores" if script is None else script.group(1)
        # A script that measures several sizes writes NAME_SIZE.json.
        found = sorted((project_root / "benchmarks" / "results").glob(f"{name}*.json"))
        assert found, f"{what}: no {name}.json"
        values = [x for one in found for x in numbers(json.loads(one.read_text("utf-8")))]
        missing += [
            f"{what}: {figure} is not in {name}*.json"
            for figure in told(f"{result} {peer}")
            if not found_in(figure, values, row)
        ]
    assert missing == []


def test_figures_are_recognised() -> None:
    assert told("0.278 / 0.590, 65% of it, 12 times slower, 3e-7, 2 threads") == [
        "0.278",
        "0.590",
        "65",
        "12",
        "3e-7",
    ]
    assert found_in("0.59", [0.5936], "")
    assert not found_in("0.59", [0.5961], "")
    assert found_in("65", [0.652], "")
    assert found_in("2.6", [0.385], "")
    assert found_in("8.5e-7", [8.52e-7], "")
    assert not found_in("8.5e-7", [8.7e-7], "")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """The text under each heading, and the names of results that it, or else the page's first
    section, refers to."""
    parts = re.split(r"^(?=#+ )", text, flags=re.MULTILINE)
    for part in parts:
        yield part, part if NAMED.search(part) else parts[1]


def statements(part: str) -> Iterator[str]:
    """Rows of tables, and sentences."""
    for block in re.split(r"\n\s*\n|\n(?=[|-] ?)", part):
        if block.startswith("|"):
            yield block
        elif block.lstrip("\n").startswith("    "):  # of commands, what stands behind them
            yield from re.findall(r"# .*", block)
        else:
            yield from re.split(r"(?<=[.;:])\s", block)


def figures(statement: str) -> tuple[list[str], list[str]]:
    """Plain numbers and percentages that a statement gives as measured.

    Versions, commands, the levels of intervals ("95 %") and bare integers are not.
    """
    named = r"`[^`]*`|sentence-transformers\s[\d.]+|\d+\.\d+\.\d+|[A-Za-z]-\d+\.\d+"
    plain = re.sub(named, "", statement)
    shares = SHARE.findall(plain)
    rest = SHARE.sub("", plain)
    units = [one.replace(",", "") for one in UNIT.findall(rest)]
    return re.findall(r"\d+(?:\.\d+)?e-?\d+|\d+\.\d+", rest) + units, shares


def values_of(root: Path, names: set[str]) -> list[float]:
    """The numbers of these results, the sizes of mini's weights, and of bytes the megabytes."""
    folder = root / "benchmarks" / "results"
    found = [file for name in sorted(names) for file in folder.glob(f"{name}*.json")]
    values = [one for file in found for one in numbers(json.loads(file.read_text("utf-8")))]
    weights = (root / "mmembed" / "models" / "mini").rglob("*.safetensors")
    values += [float(file.stat().st_size) for file in weights]
    return [*values, *(one / 1e6 for one in values if one > 1e6)]


def unproven(text: str, root: Path) -> Iterator[tuple[str, str]]:
    """Figures of a page that no result named beside them holds, with what states them."""
    for part, naming in sections(RENDERED.sub("", text)):
        names = set(NAMED.findall(naming))
        if not names:
            continue
        values = values_of(root, names)
        for statement in statements(part):
            if UNRECORDED in statement:
                continue
            plain, shares = figures(statement)
            yield from ((one, statement) for one in plain if not rounds_to(one, values))
            percent = [100 * value for value in values]
            yield from ((one, statement) for one in shares if not rounds_to(one, percent))


def stray(text: str, root: Path) -> Iterator[tuple[str, str]]:
    """Figures that look measured and stand where no result is named, with what states them."""
    plain = re.sub(r"^```.*?^```", "", RENDERED.sub("", text), flags=re.MULTILINE | re.DOTALL)
    sizes = values_of(root, set())
    for part, naming in sections(plain):
        if NAMED.search(naming):
            continue
        for statement in statements(part):
            words = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv:[\d.]+|Llama 3\.2|95 %", "", statement)
            yield from (
                (one, statement)
                for one in MEASURED.findall(words)
                if UNRECORDED not in statement and not rounds_to(one.replace(",", ""), sizes)
            )


def pages(root: Path) -> list[Path]:
    """Every page that tells numbers; the README's table has a test of its own."""
    return [root / "README.md", root / "SECURITY.md", *sorted((root / "docs").glob("*.md")), CARD]


def without_the_table(page: Path) -> str:
    """The page's text; of the README without the table of results."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^## Results\n.*?^(?=## )", "", text, flags=re.MULTILINE | re.DOTALL)


def test_numbers_of_the_documentation_are_in_the_results_they_name(project_root: Path) -> None:
    missing = [
        f"{page.name}: {figure} in {statement!r}"
        for page in pages(project_root)
        for figure, statement in unproven(without_the_table(page), project_root)
    ]
    assert missing == []


def test_no_number_stands_where_no_result_is_named(project_root: Path) -> None:
    told = []
    for page in pages(project_root):
        name = page.relative_to(project_root).as_posix()
        told += [
            f"{name}: {figure} in {statement!r}"
            for figure, statement in stray(without_the_table(page), project_root)
            if figure not in GIVEN.get(name, {})
        ]
    assert told == []


def test_an_unproven_number_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "speed.json").write_text('{"ratio": 0.652, "median_ms": 31.6, "bytes": 426998250}')
    proven = "# A\n\n`python benchmarks/speed.py`: 65% of it, 32 ms,\n427 MB.\n\n"
    table = "| a | b |\n|---|---|\n| x | 0.65 |\n"
    assert list(unproven(proven + table, tmp_path)) == []
    assert [one for one, _ in unproven(proven + "## B\n\nIt took 33 ms.\n", tmp_path)] == ["33"]
    assert [one for one, _ in unproven(proven + table + "| y | 0.66 |\n", tmp_path)] == ["0.66"]
    assert list(unproven(proven + "Before, 0.7 (not recorded).\n", tmp_path)) == []
    nothing = (
        "# A\n\n0.7 of nothing, 12 times; 1.5 (not recorded); Apache-2.0, 3.1.2, in 5 minutes.\n"
    )
    assert list(unproven(nothing, tmp_path)) == []
    assert [one for one, _ in stray(nothing, tmp_path)] == ["0.7", "12", "5"]
    assert list(stray(proven, tmp_path)) == []


def test_the_tables_of_mini_are_what_its_results_say(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"_PAGE": mini_tables._PAGE, "_CARD": mini_tables._CARD}
    for name, page in pages.items():
        monkeypatch.setattr(mini_tables, name, Path(shutil.copy(page, tmp_path / page.name)))
    results = project_root / "benchmarks" / "results"
    mini_tables.write_tables(json.loads((results / "mini_tasks.json").read_text("utf-8")))
    mini_tables.write_cuts(json.loads((results / "mini_matryoshka.json").read_text("utf-8")))
    for page in pages.values():
        assert (tmp_path / page.name).read_text("utf-8") == page.read_text("utf-8")


@pytest.mark.parametrize("name", local_tables.TABLES)
def test_the_tables_of_results_are_what_their_files_say(name: str, project_root: Path) -> None:
    file = project_root / "benchmarks" / "results" / f"{name}.json"
    page = local_tables.PAGE.read_text("utf-8")
    found = json.loads(file.read_text("utf-8"))
    assert local_tables.rendered(page, name, found) == page
    found[next(key for key in ("benchmarks", "sets", "probes") if key in found)].popitem()
    assert local_tables.rendered(page, name, found) != page


def test_every_text_set_that_was_measured_agrees_with_mteb(project_root: Path) -> None:
    """To what mteb rounds: the main metric, or all of them where ties are broken as it does."""
    file = project_root / "benchmarks" / "results" / "mteb_agreement.json"
    sets = json.loads(file.read_text("utf-8"))["sets"]
    assert len(sets) >= 5
    for name, subsets in sets.items():
        for subset, one in subsets.items():
            main = abs(one["ours"] - one["mteb"])
            assert min(main, mteb_agreement.difference(one)) < ROUNDED, (name, subset)


def test_what_nobody_has_measured_is_said(project_root: Path) -> None:
    found = {"benchmarks": {"sts": local(project_root)["benchmarks"]["sts"]}}
    page = local_tables.rendered(local_tables.PAGE.read_text("utf-8"), "local_benchmarks", found)
    assert "Not measured: `sts-multilingual`, `cranfield`" in page


def local(root: Path) -> dict[str, Any]:
    """The record of the local benchmarks."""
    file = root / "benchmarks" / "results" / "local_benchmarks.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found

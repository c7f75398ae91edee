"""Running real functions before and after every transformation of code.

    python benchmarks/code_transforms_run.py [--only NAME ...] [--most 300] [--seconds 600]
        [--folder NAME=FOLDER ...]

Takes functions that run alone from the measuring data beside the checkout, and outermost functions
of any folders of sources given. Replaces the counts of execution that a language has in
benchmarks/results/code_transforms.json; all others, by `code_transforms.py`, stay as they are.
Python and JavaScript are executed by that script.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from code_transforms import (
    COMPLETE,
    EXECUTED,
    LONGEST,
    exercism,
    files,
    readable,
    samples,
    totals,
    with_runs,
)
from machine import RESULTS, facts, write_result

from codeembed.parse import ParseTimeoutError
from codeembed.transform.runners import RUNNERS
from codeembed.transform.scopes import outer_functions, variables
from codeembed.transform.syntax import words
from codeembed.transform.tree import Code
from codeembed.transform.verify import Report, verify
from mmembed.errors import InputError

FILE = RESULTS / "code_transforms.json"
VERSIONS = {
    "typescript": ("node", "--version"),
    "php": ("php", "--version"),
    "ruby": ("ruby", "--version"),
    "c": ("gcc", "--version"),
    "cpp": ("g++", "--version"),
    "java": ("java", "--version"),
    "csharp": ("mono", "--version"),
    "go": ("go", "version"),
    "rust": ("rustc", "--version"),
}

# Names that need no import, in the languages whose functions are cut out of library files.
GIVEN = {
    "rust": words(
        "Vec String Option Some None Result Ok Err Box Default Iterator usize char str from min max"
        " assert assert_eq assert_ne debug_assert debug_assert_eq vec format println print panic"
        " matches unreachable unimplemented todo write writeln std core i8 i16 i32 i64 i128 u8 u16"
        " u32 u64 u128 isize f32 f64 bool a"
    ),
    "go": words(
        "string int int8 int16 int32 int64 uint uint8 uint16 uint32 uint64 float32 float64 byte"
        " rune bool error any append cap copy len make new panic true false nil iota strings bytes"
        " strconv math bits utf8 unicode sort errors fmt"
    ),
}


def used() -> float:
    """Seconds of the processor that this process and its ended children used."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def stands_alone(source: str, language: str) -> bool:
    """Whether a function cut out of its file is worth a compilation.

    It takes arguments, since one without is mostly a test, and names nothing but its own variables
    and what the language gives.
    """
    try:
        code = Code.read(source.encode(), language)
    except (InputError, ParseTimeoutError):
        return False
    target = RUNNERS[language].target(code)
    if target is None or not target.arity:
        return False
    found = outer_functions(code)
    own = {each.name for function in found for each in variables(code, function)}
    leaves = code.find(frozenset({"identifier", "type_identifier", "package_identifier"}))
    return {code.of(each) for each in leaves} <= own | GIVEN[language] | {target.name}


def gather(language: str, folders: dict[str, Path]) -> list[tuple[str, str]]:
    """Functions of one language that may run alone, each once, in a fixed order."""
    runnable = (*COMPLETE, "poj104")
    found: dict[str, str] = {}

    def take(sources: Iterator[tuple[str, str, str]]) -> None:
        for of, source, name in sources:
            if of == language and len(source) <= LONGEST:
                found.setdefault(source, name)

    take(each for each in samples([language]) if each[2] in runnable)
    take(exercism())
    for name, folder in folders.items():
        cut_out = files(folder, name, lambda of: of != language)
        take(each for each in cut_out if stands_alone(each[1], language))
    chosen = list(found.items())
    Random(language).shuffle(chosen)
    return chosen


def measure(language: str, sources: list[tuple[str, str]], most: int, seconds: float) -> Report:
    """Verify and run sources until ``most`` ran or that much of the processor was used."""
    report = Report()
    started = used()
    for seed, (source, _) in enumerate(sources):
        runs = report.runs.get(language, {})
        if runs.get("executed", 0) >= most or used() - started > seconds:
            break
        code = readable(source, language, report)
        if code is None:
            continue
        verify(code, report, seed=seed)
        print(language, seed, round(used() - started), report.runs.get(language), flush=True)
        for name, counts in report.languages[language].items():
            for text in counts.failures:
                print(f"FAILURE of {name}:\n{text}\n", flush=True)
            counts.failures.clear()
    return report


def merged(one: dict[str, Any], report: Report, sources: dict[str, int]) -> dict[str, Any]:
    """A language's row with other counts of execution."""
    language = one["language"]
    version = subprocess.run(VERSIONS[language], capture_output=True, text=True, check=True).stdout
    run = {
        "date": datetime.now(UTC).date().isoformat(),
        "program": version.splitlines()[0],
        "functions": report.runs[language],
        "sources": sources,
    }
    return with_runs(one, run, report.as_json()["languages"][language])


def main() -> None:
    """Run and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(VERSIONS), choices=list(VERSIONS))
    parser.add_argument("--most", type=int, default=300, help="functions executed, a language")
    parser.add_argument("--seconds", type=float, default=600, help="of the processor, a language")
    parser.add_argument("--folder", action="append", default=[])
    arguments = parser.parse_args()
    folders = {}
    for each in arguments.folder:
        name, _, folder = each.partition("=")
        folders[name] = Path(folder)
    for language in arguments.only:
        if language in EXECUTED or not RUNNERS[language].available:
            continue
        sources = gather(language, folders)
        report = measure(language, sources, arguments.most, arguments.seconds)
        by_source: dict[str, int] = {}
        tried = report.functions.get(language, 0) + report.unreadable.get(language, 0)
        for _, name in sources[:tried]:
            by_source[name] = by_source.get(name, 0) + 1
        before = json.loads(FILE.read_text(encoding="utf-8"))
        languages = [
            merged(one, report, by_source) if one["language"] == language else one
            for one in before["languages"]
        ]
        changed = {"machine": facts("tree-sitter"), "totals": totals(languages)}
        write_result(FILE.stem, before | changed | {"languages": languages})


if __name__ == "__main__":
    main()
